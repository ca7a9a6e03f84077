import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

export async function setDiscussionStatus(
	params: HubAccess & {
		readonly repo: string;
		readonly num: number;
		readonly status: "open" | "closed";
		readonly comment?: string;
	},
): Promise<void> {
	const { repo, num, status, comment, ...access } = params;
	await requestJson({
		...access,
		method: "POST",
		path: modelApiPath(repo, `/discussions/${num}/status`),
		body: { status, ...(comment === undefined ? {} : { comment }) },
		schema: z.unknown(),
		// With a comment, a second call would say it twice.
		repeatable: comment === undefined,
	});
}
