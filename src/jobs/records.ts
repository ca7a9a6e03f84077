import type { Refusal } from "../errors.ts";
import type { Manifest } from "../protocol/manifest.ts";

/** Rows as the rest of the program sees them; `db/` alone knows how they are stored. */

export type JobState =
	| "planned"
	| "waiting"
	| "dispatching"
	| "running"
	| "ingesting"
	| "verifying"
	| "publishing"
	| "announcing"
	| "done"
	| "failed"
	| "cancelled"
	| "superseded";

export const TERMINAL_STATES = ["done", "failed", "cancelled", "superseded"] as const satisfies readonly JobState[];

export type RequestKind = "push" | "comment" | "sweep" | "api" | "cli";

/** Where an answer goes. */
export type ReplyTo = {
	/** The GitHub repo whose issue it is; absent: a discussion of the source itself. */
	readonly github?: string;
	readonly discussion: number;
	readonly commentId: string | null;
	readonly replyCommentId: string | null;
};

export type RequestRecord = {
	readonly id: string;
	readonly kind: RequestKind;
	readonly sourceRepo: string;
	readonly sourceSha: string | null;
	readonly recipes: readonly string[];
	readonly requester: string | null;
	readonly replyTo: ReplyTo | null;
	readonly jobId: string | null;
	/** Why nothing is done for it; `null` while something is. */
	readonly refusal: Refusal | null;
	readonly createdAt: Date;
};

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
	readonly createdAt: Date;
	readonly updatedAt: Date;
	readonly startedAt: Date | null;
	readonly finishedAt: Date | null;
};

export type VariantState = "wanted" | "staged" | "verified" | "published" | "failed";

export type VariantRecord = {
	readonly id: string;
	readonly sourceRepo: string;
	readonly sourceSha: string;
	readonly recipe: string;
	readonly recipeHash: string;
	readonly jobId: string;
	readonly state: VariantState;
	readonly targetRepo: string;
	/** `null` until the runner's result was ingested. */
	readonly manifest: Manifest | null;
	/** The commit of the target repo that published it. */
	readonly targetSha: string | null;
	readonly refusal: Refusal | null;
	/** The variant of an earlier commit with the same weights whose files it takes over; absent: it is made by a run. */
	readonly carriedFrom?: string | null;
	/** Whether the source has a newer commit; absent: not looked up. */
	readonly isOlder?: boolean;
	readonly createdAt: Date;
	readonly publishedAt: Date | null;
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

export type DeliveryOutcome = "pending" | "accepted" | "ignored" | "failed";

export type DeliveryRecord = {
	readonly id: string;
	readonly source: "hub" | "github";
	readonly dedupeKey: string;
	readonly receivedAt: Date;
	readonly outcome: DeliveryOutcome;
	/** Why it was ignored, or what failed. */
	readonly detail: string | null;
	readonly body: unknown;
};
