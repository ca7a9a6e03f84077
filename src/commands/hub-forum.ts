import { commentOnDiscussion } from "../hub/comment-on-discussion.ts";
import { commentsOf, type Discussion } from "../hub/discussion.ts";
import { editComment } from "../hub/edit-comment.ts";
import { getDiscussion } from "../hub/get-discussion.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import type { Forum } from "./forum.ts";

const UNREADABLE: ReadonlySet<number> = new Set([401, 403, 404, 410]);
const UNWRITABLE: ReadonlySet<number> = new Set([403, 404, 410]);

/** Discussions of the Hub. `hub` carries the publisher's token: answers are written in the bot's name. */
export function hubForum(options: { readonly hub: HubAccess; readonly botUserId: () => Promise<string> }): Forum {
	const { hub } = options;

	async function unlessRefused<Result>(work: () => Promise<Result>): Promise<Result | null> {
		try {
			return await work();
		} catch (error) {
			if (UNWRITABLE.has(hubStatus(error) ?? 0)) return null;
			throw error;
		}
	}

	return {
		botId: options.botUserId,
		isTrusted: async (_place, author) => author.trusted === true,
		async read({ repo, thread }) {
			let discussion: Discussion;
			try {
				discussion = await getDiscussion({ ...hub, repo, num: thread });
			} catch (error) {
				if (UNREADABLE.has(hubStatus(error) ?? 0)) return null;
				throw error;
			}
			return {
				title: null,
				locked: discussion.locked === true,
				comments: commentsOf(discussion).map((comment) => ({
					id: comment.id,
					text: comment.data.latest.raw ?? "",
					author:
						comment.author === undefined
							? null
							: {
									id: comment.author._id ?? null,
									name: comment.author.name,
									trusted: comment.author.isOwner === true || comment.author.isOrgMember === true,
									robot: false,
								},
				})),
			};
		},
		post: ({ repo, thread }, text) =>
			unlessRefused(() => commentOnDiscussion({ ...hub, repo, num: thread, comment: text })),
		edit: ({ repo, thread }, commentId, text) =>
			unlessRefused(async () => {
				await editComment({ ...hub, repo, num: thread, commentId, content: text });
				return { id: commentId };
			}),
		// The Hub takes no reactions from programs: the answer itself is the sign.
		acknowledge: async () => {},
	};
}
