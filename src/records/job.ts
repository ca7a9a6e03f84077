import type { Refusal } from "../errors.ts";
import type { SourceFacts } from "./source.ts";

export const JOB_STATES = [
	"planned",
	"waiting",
	"dispatching",
	"running",
	"ingesting",
	"verifying",
	"publishing",
	"announcing",
	"done",
	"failed",
	"cancelled",
	"superseded",
] as const;
export type JobState = (typeof JOB_STATES)[number];

export const TERMINAL_STATES = ["done", "failed", "cancelled", "superseded"] as const satisfies readonly JobState[];

export function isFinished(state: JobState): boolean {
	return (TERMINAL_STATES as readonly JobState[]).includes(state);
}

export type JobRecord = {
	readonly id: string;
	readonly sourceRepo: string;
	readonly sourceSha: string;
	readonly state: JobState;
	/** The attempt. It grows with every dispatch; results that carry an older one are refused. */
	readonly fence: number;
	readonly runner: string;
	readonly runnerHandle: string | null;
	readonly cancelRequested: boolean;
	readonly refusal: Refusal | null;
	/** One sentence for people: why it waits, what it does. */
	readonly statusText: string;
	/** What people should know of how it came about, from then on to its end: why a run is needed after all. */
	readonly remark?: string | null;
	/** Where it is to run, how long that takes and what it costs, as far as that was estimated. */
	readonly planText?: string | null;
	/** How long the run takes by that estimate. */
	readonly plannedSeconds?: number | null;
	/** Until then a ceiling, a quota or another run keeps it out of the line for a runner. */
	readonly heldUntil?: Date | null;
	readonly createdAt: Date;
	readonly updatedAt: Date;
	readonly startedAt: Date | null;
	readonly finishedAt: Date | null;
};

/** Whether a job waits for somebody's word, or for a ceiling or a quota to let it go on. */
export function isHeld(job: Pick<JobRecord, "state" | "heldUntil">, now: Date): boolean {
	const waits = job.state === "planned" || job.state === "waiting";
	return waits && job.heldUntil != null && job.heldUntil > now;
}

export type StopAs = "cancelled" | "superseded";

/** A job with what the steps alone need to know. */
export type JobWork = {
	readonly job: JobRecord;
	readonly stopAs: StopAs | null;
	readonly runAttempts: number;
	readonly stepFailures: number;
	readonly facts: SourceFacts | null;
	readonly runnerEventsSeen: number;
	readonly cleanupDue: boolean;
	readonly announceVersion: number;
	readonly announceDue: boolean;
	readonly outboxFailures: number;
	/** When somebody last said that the run has news. */
	readonly hintAt: Date | null;
	/** The kind of machine that the estimate chose. */
	readonly flavor: string | null;
};

/** One state change or runner event of a job, numbered from 1 within the job: the number is the SSE `id`. */
export type JobEventRecord = {
	readonly jobId: string;
	readonly sequence: number;
	readonly at: Date;
	readonly kind: "state" | "runner";
	/** A `RunnerEvent`, or `{from, to, statusText}` of a state change. */
	readonly body: unknown;
};
