import type { DeliveriesContext } from "../deliveries/deliveries-context.ts";
import { endOrphans } from "../jobs/end-orphans.ts";
import type { TidyReport } from "../jobs/retention/tidy-up.ts";
import { keepTidying } from "./keep-tidying.ts";
import type { MessageQueue } from "./message-queue.ts";
import { forgetOldLeases, keepSupervising } from "./supervise.ts";
import { scheduleSweeps } from "./sweep-schedule.ts";
import { workersOf } from "./workers.ts";

/** The bot's engine: deliveries in, published variants out. */
export type Engine = {
	/** Takes up whatever an earlier process left and goes on with it. */
	start(): Promise<void>;
	/**
	 * No new steps; those that run come to their end within the deadline. Runs go on by themselves and are found again.
	 * The database stays open: whoever opened it closes it afterwards.
	 */
	stop(deadlineMs?: number): Promise<void>;
	/** Whether steps are being worked on. */
	isRunning(): boolean;
};

const SUPERVISE_INTERVAL_MS = 1500;

/** `queue`: the one that the context's `wake` sends to. */
export function createEngine(options: {
	readonly context: DeliveriesContext;
	readonly queue: MessageQueue;
	readonly superviseIntervalMs?: number;
	/** Told after every look over what is kept. */
	readonly onTidied?: (report: TidyReport) => void;
}): Engine {
	const { context, queue } = options;
	const { configuration, log } = context;
	let supervisor: { stop(): Promise<void> } | null = null;
	let tidying: { stop(): Promise<void> } | null = null;
	let sweeps: { stop(): Promise<void> } | null = null;
	let isRunning = false;
	return {
		async start() {
			if (isRunning) return;
			const workers = workersOf(context);
			await queue.start(workers.map((worker) => worker.queue));
			isRunning = true;
			await forgetOldLeases(context);
			await endOrphans(context).catch((error: unknown) =>
				log.warn("Runs of this machine could not be looked over", { error }),
			);
			for (const worker of workers) await queue.work(worker);
			supervisor = await keepSupervising(context, queue, options.superviseIntervalMs ?? SUPERVISE_INTERVAL_MS);
			sweeps = await scheduleSweeps(context, queue);
			tidying = keepTidying(context, options.onTidied ?? (() => undefined));
		},
		async stop(deadlineMs = configuration.server.shutdownSeconds * 1000) {
			if (!isRunning) return;
			isRunning = false;
			await sweeps?.stop();
			await tidying?.stop();
			await supervisor?.stop();
			await queue.stop(deadlineMs);
		},
		isRunning: () => isRunning,
	};
}
