import { z } from "zod";
import { CommentEvent } from "./discussion.ts";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

/** Not repeatable: after an unclear failure look for the comment with `getDiscussion` first. */
export async function commentOnDiscussion(
	params: HubAccess & { readonly repo: string; readonly num: number; readonly comment: string },
): Promise<CommentEvent> {
	const { repo, num, comment, ...access } = params;
	const answer = await requestJson({
		...access,
		method: "POST",
		path: modelApiPath(repo, `/discussions/${num}/comment`),
		body: { comment },
		schema: z.object({ newMessage: CommentEvent }),
	});
	return answer.newMessage;
}
