import { bringTimesBack } from "../db/bring-times-back.ts";
import { listDueDeliveries } from "../db/deliveries.ts";
import { clearLeases, listAbandonedRuns, listDueJobs, listDueOutboxes, moveJob } from "../db/jobs.ts";
import { listSketchesToStore } from "../db/sketches.ts";
import { type JobsContext, later } from "../jobs/context.ts";
import { LEASE_SECONDS } from "../jobs/keep-lease.ts";
import { wakeLine } from "../jobs/steps/run-job-step.ts";
import { stepOf, transition } from "../jobs/transitions.ts";
import { wakeJob } from "../jobs/wake-job.ts";
import type { MessageQueue } from "./message-queue.ts";

const BATCH = 200;
/** A run whose own process has not looked after it for this long is taken for lost with that machine. */
const ABANDONED_SECONDS = 15 * 60;

/** Slow corrections of a clock are none of our business. */
const CLOCK_TOLERANCE_MS = 2000;
/** No lease is given for longer. */
const LONGEST_LEASE_SECONDS = 2 * LEASE_SECONDS;

/** Leases of a process that was killed; on the embedded database there can be no other holder. */
export async function forgetOldLeases(context: JobsContext): Promise<void> {
	if (context.database.kind === "embedded") await clearLeases(context.database.handle);
}

/**
 * Makes due what a clock that was ahead put off. The embedded database goes by that clock as well: a message sent then
 * waits until time has caught up, and bars every other one for its row.
 */
async function followBack(context: JobsContext, queue: Pick<MessageQueue, "forgetWaiting">): Promise<number> {
	const now = context.clock.now();
	const rows = await bringTimesBack(context.database.handle, now, later(now, LONGEST_LEASE_SECONDS));
	await queue.forgetWaiting();
	return rows;
}

/** Looks for due work now and again and again. `stop` waits for a look that is under way. */
export async function keepSupervising(
	context: JobsContext,
	queue: Pick<MessageQueue, "forgetWaiting">,
	intervalMilliseconds: number,
): Promise<{ stop(): Promise<void> }> {
	const { clock } = context;
	// The clock may have gone back while no bot ran.
	await followBack(context, queue);
	await superviseOnce(context);
	let seen = { wall: clock.now().getTime(), steady: performance.now() };
	/** A clock that goes forward makes things due early, which costs nothing; one that goes back would make them wait. */
	async function followClock(): Promise<void> {
		const now = clock.now();
		const looked = { wall: now.getTime(), steady: performance.now() };
		const ahead = looked.wall - seen.wall - (looked.steady - seen.steady);
		seen = looked;
		if (ahead > -CLOCK_TOLERANCE_MS) return;
		const rows = await followBack(context, queue);
		context.log.warn("The clock went back; what it had put off is due now", {
			seconds: Math.round(-ahead / 1000),
			rows,
		});
	}
	let isStopped = false;
	let timer: NodeJS.Timeout;
	let looking: Promise<void> = Promise.resolve();
	function lookLater(): void {
		timer = setTimeout(() => {
			looking = followClock()
				.then(() => superviseOnce(context))
				.catch((error: unknown) => context.log.error("Looking for due work failed", { error }))
				.then(() => {
					if (!isStopped) lookLater();
				});
		}, intervalMilliseconds);
	}
	lookLater();
	return {
		async stop() {
			isStopped = true;
			clearTimeout(timer);
			await looking;
		},
	};
}

/**
 * Sends a message for every row that is due and that nobody works on. Messages are only hints, so a step that was lost
 * with a process, or with its message, is found here.
 */
async function superviseOnce(context: JobsContext): Promise<void> {
	const { database, clock, runner, log } = context;
	const { handle } = database;
	const now = clock.now();
	for (const job of await listDueJobs(handle, now, BATCH)) {
		const step = stepOf(job.state);
		const isOurs = job.runner === runner.name || !["dispatching", "running", "ingesting"].includes(job.state);
		if (step !== null && isOurs) await context.wake({ kind: "step", step, jobId: job.id, runner: job.runner }, now);
	}
	for (const jobId of await listDueOutboxes(handle, now, BATCH)) await context.wake({ kind: "outbox", jobId }, now);
	for (const deliveryId of await listDueDeliveries(handle, now, BATCH)) {
		await context.wake({ kind: "delivery", deliveryId }, now);
	}
	if (context.ports.sketchStore != null) {
		for (const identity of await listSketchesToStore(handle, now, BATCH)) {
			await context.wake({ kind: "sketch", ...identity }, now);
		}
	}
	// A slot that fell free with a process that died woke nobody.
	await wakeLine(context, now);
	const abandoned = await listAbandonedRuns(handle, { runner: runner.name, before: later(now, -ABANDONED_SECONDS) });
	for (const { job } of abandoned) {
		const to = transition(job.state, "lost");
		if (to === null) continue;
		const moved = await database.transaction((tx) =>
			moveJob(tx, {
				id: job.id,
				from: job.state,
				fence: job.fence,
				owner: null,
				to,
				now,
				statusText: "The machine that ran it has not been heard of; it is planned again.",
				set: { runner: "", runnerHandle: null },
			}),
		);
		if (moved === null) continue;
		log.warn("A run was given up with its machine", { job: job.id, runner: job.runner });
		await wakeJob(context, moved);
	}
}
