import type { Refusal } from "../errors.ts";

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
