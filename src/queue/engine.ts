import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { schedule } from "node-cron";
import type { Clock } from "../clock.ts";
import type { Configuration } from "../config/schema.ts";
import type { Database } from "../db/database.ts";
import { insertDelivery, reviveDelivery } from "../db/deliveries.ts";
import type { JobsContext, Work } from "../jobs/context.ts";
import { endOrphans } from "../jobs/end-orphans.ts";
import type { Ports, RecordRequest } from "../jobs/ports.ts";
import { type PreviewRequest, previewRequest } from "../jobs/preview.ts";
import { approveJob, cancelJob, type JobChange, recordRequest, retryJob } from "../jobs/service.ts";
import { type SweepReport, sweep } from "../jobs/sweep.ts";
import type { Log } from "../log.ts";
import type { DeliveryRecord } from "../records/delivery.ts";
import type { Runner } from "../runners/runner.ts";
import { type MessageQueue, startQueue } from "./boss.ts";
import { announceHandler } from "./handlers/announce.ts";
import { deliverHandler } from "./handlers/deliver.ts";
import { dispatchHandler } from "./handlers/dispatch.ts";
import { ingestHandler } from "./handlers/ingest.ts";
import { pollHandler } from "./handlers/poll.ts";
import { publishHandler } from "./handlers/publish.ts";
import { sideHandler } from "./handlers/side.ts";
import { storeSketchHandler } from "./handlers/store-sketch.ts";
import { sweepHandler } from "./handlers/sweep.ts";
import { verifyHandler } from "./handlers/verify.ts";
import { ingestQueue, pollQueue, queueOfStep, SHARED_QUEUES } from "./queue-names.ts";
import { forgetOldLeases, superviseOnce } from "./supervise.ts";

type EngineOptions = {
	readonly database: Database;
	readonly configuration: Configuration;
	/** `handleComment` and others may call `recordRequest`, which exists only then: so they are made from it. */
	readonly ports: (engine: EngineRequests) => Ports;
	readonly runner: Runner;
	readonly planner?: JobsContext["planner"];
	readonly clock: Clock;
	readonly log: Log;
	readonly newId?: () => string;
	readonly superviseIntervalMs?: number;
};

/** What the ports may ask of the engine. */
type EngineRequests = Pick<Engine, "recordRequest" | "previewRequest" | "cancelJob" | "retryJob">;

export type Engine = {
	/** Takes up whatever an earlier process left and goes on with it. */
	start(): Promise<void>;
	/**
	 * No new steps; those that run come to their end within the deadline. Runs go on by themselves and are found again.
	 * The database stays open: whoever opened it closes it afterwards.
	 */
	stop(deadlineMs?: number): Promise<void>;
	/** Durable when it returns. The same key twice is one delivery. */
	storeDelivery(delivery: {
		readonly source: DeliveryRecord["source"];
		readonly dedupeKey: string;
		readonly receivedAt: Date;
		readonly body: unknown;
	}): Promise<{ readonly id: string; readonly duplicate: boolean }>;
	readonly recordRequest: RecordRequest;
	readonly previewRequest: PreviewRequest;
	cancelJob(id: string): Promise<JobChange>;
	retryJob(id: string): Promise<JobChange>;
	approveJob(id: string): Promise<JobChange>;
	/** Looks over the watched repos now, whatever the schedule says. */
	sweepNow(): Promise<SweepReport>;
	/** Whether steps are being worked on. */
	isRunning(): boolean;
};

/** Messages that one worker takes at once where a step is short. Those of a dead worker are sent again by the supervisor. */
const SHORT_STEPS = 4;
const SUPERVISE_INTERVAL_MS = 1500;
/** What is due later than this is found by the supervisor. */
const SEND_AHEAD_MS = 2000;

function sendOf(queue: MessageQueue, work: Work, at: Date): Promise<void> {
	switch (work.kind) {
		case "step":
			return queue.send(queueOfStep(work.step, work.runner), work.jobId, { jobId: work.jobId }, at);
		case "side":
			return queue.send("side", work.jobId, { jobId: work.jobId }, at);
		case "sketch": {
			const { kind: _, ...identity } = work;
			return queue.send("sketch", `${work.repo} ${work.sha} ${work.fingerprint}`, identity, at);
		}
		case "delivery":
			return queue.send("deliver", work.deliveryId, { deliveryId: work.deliveryId }, at);
	}
}

/** The bot's engine: deliveries in, published variants out. */
export function createEngine(options: EngineOptions): Engine {
	const { database, configuration, runner, clock, log } = options;
	const newId = options.newId ?? randomUUID;
	const owner = `${hostname()}:${process.pid}:${newId()}`;
	let queue: MessageQueue | null = null;
	let isRunning = false;
	let supervisor: NodeJS.Timeout | null = null;
	let supervising: Promise<void> = Promise.resolve();
	let cron: { destroy(): unknown } | null = null;

	const requests = {
		recordRequest: (input) => recordRequest(context, input),
		previewRequest: (input) => previewRequest(context, input),
		cancelJob: (id) => cancelJob(context, id),
		retryJob: (id) => retryJob(context, id),
	} satisfies EngineRequests;

	const context: JobsContext = {
		database,
		clock,
		log,
		configuration,
		ports: options.ports(requests),
		runner,
		planner: options.planner ?? null,
		newId,
		owner,
		async wake(work, at) {
			// A waiting message bars every later one for the same row, so that only near ones are sent ahead of time.
			if (queue === null || at.getTime() - clock.now().getTime() > SEND_AHEAD_MS) return;
			try {
				await sendOf(queue, work, at);
			} catch (error) {
				// The row says what is due; the supervisor sends again.
				log.warn("A queue message could not be sent", { work, error });
			}
		},
	};

	function superviseNext(): void {
		supervisor = setTimeout(() => {
			supervising = superviseOnce(context)
				.catch((error: unknown) => log.error("Looking for due work failed", { error }))
				.then(() => {
					if (isRunning) superviseNext();
				});
		}, options.superviseIntervalMs ?? SUPERVISE_INTERVAL_MS);
	}

	async function startWorkers(opened: MessageQueue): Promise<void> {
		const concurrency = context.configuration.runner.concurrency;
		const work = (name: string, atOnce: number, handler: (data: object) => Promise<void>, batch = 1) =>
			opened.work(name, { concurrency: atOnce, batch }, handler);
		await work("deliver", 2, deliverHandler(context));
		await work("dispatch", 2, dispatchHandler(context), SHORT_STEPS);
		await work(pollQueue(runner.name), concurrency, pollHandler(context), SHORT_STEPS);
		await work(ingestQueue(runner.name), 1, ingestHandler(context));
		await work("verify", 1, verifyHandler(context));
		await work("publish", 1, publishHandler(context));
		await work("announce", 1, announceHandler(context), SHORT_STEPS);
		await work("side", 1, sideHandler(context), SHORT_STEPS);
		await work("sketch", 1, storeSketchHandler(context));
		await work("sweep", 1, sweepHandler(context));
	}

	return {
		...requests,
		approveJob: (id) => approveJob(context, id),
		async start() {
			if (isRunning) return;
			const opened = await startQueue({ database, log });
			await opened.open([...SHARED_QUEUES, pollQueue(runner.name), ingestQueue(runner.name)]);
			queue = opened;
			isRunning = true;
			await forgetOldLeases(context);
			await endOrphans(context).catch((error: unknown) =>
				log.warn("Runs of this machine could not be looked over", { error }),
			);
			await startWorkers(opened);
			await superviseOnce(context);
			superviseNext();
			if (configuration.sweep.enabled) {
				cron = schedule(
					configuration.sweep.cron,
					async ({ date }) => {
						// Every replica is triggered; the slot's row lets one of them through.
						const slot = `cron:${date.toISOString().slice(0, 19)}`;
						await opened.send("sweep", slot, { slot }, clock.now()).catch((error: unknown) => {
							log.warn("A sweep could not be started", { error });
						});
					},
					{ timezone: "UTC", noOverlap: true },
				);
				const slot = `start:${clock.now().toISOString()}`;
				await opened.send("sweep", slot, { slot }, clock.now());
			}
		},
		async stop(deadlineMs = configuration.server.shutdownSeconds * 1000) {
			if (!isRunning) return;
			isRunning = false;
			await cron?.destroy();
			if (supervisor !== null) clearTimeout(supervisor);
			await supervising;
			await queue?.stop(deadlineMs);
			queue = null;
		},
		async storeDelivery(delivery) {
			const { id, stored } = await insertDelivery(database.handle, { ...delivery, id: newId() });
			const isDue = stored || (await reviveDelivery(database.handle, id, clock.now()));
			if (isDue) await context.wake({ kind: "delivery", deliveryId: id }, clock.now());
			return { id, duplicate: !stored };
		},
		sweepNow: () => sweep(context),
		isRunning: () => isRunning,
	};
}
