import { leaseOutbox, renewOutboxLease, settleOutbox, traceOfJob } from "../../db/jobs.ts";
import { RetryableError } from "../../errors.ts";
import { inTrace } from "../../log.ts";
import { isFinished, type JobWork } from "../../records/job.ts";
import { type JobsContext, later } from "../context.ts";
import { keepLease, LEASE_SECONDS } from "../keep-lease.ts";
import { announceJob } from "./announce.ts";
import { cleanUpJob } from "./clean-up-job.ts";

const MAXIMUM_DELAY_SECONDS = 300;
/** A discussion that cannot be written to for this long is given up until the job changes again. */
const MAXIMUM_FAILURES = 12;

/** Announcements and clean-up of one job: both may be late, neither holds up a step. */
export async function runOutbox(context: JobsContext, jobId: string): Promise<void> {
	const { database, clock } = context;
	const owner = `${context.owner}:${context.newId()}`;
	const { handle } = database;
	const now = clock.now();
	const work = await leaseOutbox(handle, { id: jobId, owner, now, until: later(now, LEASE_SECONDS) });
	if (work === null) return;
	await inTrace(await traceOfJob(handle, jobId), () => emptyOutbox(context, work, owner));
}

async function emptyOutbox(context: JobsContext, work: JobWork, owner: string): Promise<void> {
	const { database, clock, log } = context;
	const { handle } = database;
	const jobId = work.job.id;
	const release = keepLease(
		() => renewOutboxLease(handle, { id: jobId, owner, until: later(clock.now(), LEASE_SECONDS) }),
		log,
	);
	let announced: number | null = null;
	let cleaned = false;
	let delay: number | null = null;
	const problem = (error: unknown) => {
		const asked = error instanceof RetryableError ? error.retryAfterSeconds : null;
		delay = Math.max(delay ?? 0, asked ?? Math.min(MAXIMUM_DELAY_SECONDS, 2 ** (work.outboxFailures + 1)));
		if (!(error instanceof RetryableError)) log.warn("The outbox of a job could not be emptied", { job: jobId, error });
	};
	try {
		// Clean-up first: that a job ended is reported when nothing of it is left.
		if (work.cleanupDue && isFinished(work.job.state)) {
			await cleanUpJob(context, work.job);
			cleaned = true;
		}
	} catch (error) {
		problem(error);
	}
	if (work.announceDue && work.job.state !== "announcing") {
		try {
			await announceJob(context, jobId);
			announced = work.announceVersion;
		} catch (error) {
			if (work.outboxFailures >= MAXIMUM_FAILURES) {
				announced = work.announceVersion;
				log.error("A job could not be announced", { job: jobId, error });
			} else problem(error);
		}
	}
	await release();
	const nextAt = later(clock.now(), delay ?? 0);
	await settleOutbox(handle, {
		id: jobId,
		owner,
		announced,
		cleaned,
		failures: delay === null ? 0 : work.outboxFailures + 1,
		nextAt,
	});
	if (delay !== null) await context.wake({ kind: "outbox", jobId }, nextAt);
}
