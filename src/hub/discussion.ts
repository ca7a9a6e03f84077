import { z } from "zod";

/** People are compared by `_id`: names and titles can be taken by anybody. */
const DiscussionAuthor = z.object({
	_id: z.string().optional(),
	name: z.string(),
	type: z.string().optional(),
	/** Of the repo. */
	isOwner: z.boolean().optional(),
	isOrgMember: z.boolean().optional(),
});

export const CommentEvent = z.object({
	id: z.string(),
	type: z.literal("comment"),
	createdAt: z.string(),
	author: DiscussionAuthor.optional(),
	data: z.object({
		hidden: z.boolean().optional(),
		edited: z.boolean().optional(),
		latest: z.object({ raw: z.string().optional() }),
		parentCommentId: z.string().nullish(),
	}),
});
export type CommentEvent = z.infer<typeof CommentEvent>;

/** Title changes, status changes, commits and kinds that are newer than this program. */
const OtherEvent = z.object({ id: z.string(), type: z.string() });

const DiscussionEvent = z.union([CommentEvent, OtherEvent]);

const DiscussionStatus = z.enum(["draft", "open", "closed", "merged"]);

const fields = {
	num: z.int(),
	title: z.string(),
	status: DiscussionStatus,
	isPullRequest: z.boolean(),
	author: DiscussionAuthor.nullish(),
	createdAt: z.string(),
	pinned: z.boolean().optional(),
};

export const DiscussionEntry = z.object({ ...fields, numComments: z.int().optional() });
export type DiscussionEntry = z.infer<typeof DiscussionEntry>;

export const Discussion = z.object({ ...fields, locked: z.boolean().optional(), events: z.array(DiscussionEvent) });
export type Discussion = z.infer<typeof Discussion>;

/** The visible comments, oldest first; the opening message is the first. */
export function commentsOf(discussion: Discussion): CommentEvent[] {
	return discussion.events.flatMap((event) => {
		const comment = CommentEvent.safeParse(event);
		return comment.success && comment.data.data.hidden !== true ? [comment.data] : [];
	});
}

export const MAXIMUM_COMMENT_CHARACTERS = 65_536;
