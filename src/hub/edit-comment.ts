import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

/** Replaces the text of a comment that the token's user wrote. */
export async function editComment(
	params: HubAccess & {
		readonly repo: string;
		readonly num: number;
		readonly commentId: string;
		readonly content: string;
	},
): Promise<void> {
	const { repo, num, commentId, content, ...access } = params;
	await requestJson({
		...access,
		method: "POST",
		path: modelApiPath(repo, `/discussions/${num}/comment/${encodeURIComponent(commentId.toLowerCase())}/edit`),
		body: { content },
		schema: z.unknown(),
		repeatable: true,
	});
}
