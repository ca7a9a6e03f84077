/** A comment that the webhook reported. The text is a hint; the handler reads the discussion again. */
type CommentHint = {
	readonly deliveryId: string;
	/** Absent: the Hub, where `repo` is the model itself. */
	readonly host?: "hub" | "github";
	readonly repo: string;
	readonly discussion: number;
	readonly commentId: string | null;
	/** The author's number as the delivery has it; `null`: not stated. */
	readonly authorId?: string | null;
};

/** `accepted`: something was asked of the bot and answered. `detail` says what or why not, for the operator. */
export type CommentHandler = (
	hint: CommentHint,
) => Promise<{ readonly outcome: "accepted" | "ignored"; readonly detail: string }>;
