import type { Handle } from "../../db/database.ts";
import { type JobMove, moveJob } from "../../db/jobs.ts";
import type { Refusal } from "../../errors.ts";
import { isFinished, type JobRecord, type JobState, type JobWork } from "../../records/job.ts";
import type { JobsContext } from "../context.ts";
import { type JobEvent, transition } from "../transitions.ts";

/** A step runs under a lease: `signal` aborts when the lease is lost or the job is to end. */
export type StepContext = JobsContext & { readonly signal: AbortSignal };

export type StepResult =
	/** The step made its move; the next one, if any, is due at once. */
	| { readonly kind: "moved"; readonly job: JobRecord }
	/** The same step again, later. */
	| { readonly kind: "again"; readonly seconds: number; readonly statusText: string | null }
	| { readonly kind: "fail"; readonly refusal: Refusal };

export type Step = (context: StepContext, work: JobWork) => Promise<StepResult>;

/** The job is no longer where this step believes it to be: somebody else has it, and what was done here counts no more. */
export class StaleJobError extends Error {
	override readonly name = "StaleJobError";
}

/** States that are reported to people outside; the rest pass within seconds or minutes. */
const ANNOUNCED: readonly JobState[] = ["planned", "waiting", "running", "failed", "cancelled", "superseded"];

type AdvanceOptions = Pick<JobMove, "set" | "nextStepAt" | "keepLease"> & { readonly statusText: string };

/** Moves a job by the transition table, under this process's lease, within `tx`. */
export async function advanceIn(
	tx: Handle,
	context: JobsContext,
	job: JobRecord,
	event: JobEvent,
	options: AdvanceOptions,
): Promise<JobRecord> {
	const to = transition(job.state, event);
	if (to === null) throw new Error(`A job that is ${job.state} cannot ${event}.`);
	const moved = await moveJob(tx, {
		id: job.id,
		from: job.state,
		fence: job.fence,
		owner: context.owner,
		to,
		now: context.clock.now(),
		announce: ANNOUNCED.includes(to),
		...(isFinished(to) ? { cleanup: true } : {}),
		...options,
	});
	if (moved === null) throw new StaleJobError(`Job ${job.id} moved on without this step.`);
	return moved;
}

export async function advance(
	context: JobsContext,
	job: JobRecord,
	event: JobEvent,
	options: AdvanceOptions,
): Promise<JobRecord> {
	return await context.database.transaction((tx) => advanceIn(tx, context, job, event, options));
}
