import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

export async function setDiscussionTitle(
	params: HubAccess & { readonly repo: string; readonly num: number; readonly title: string },
): Promise<void> {
	const { repo, num, title, ...access } = params;
	await requestJson({
		...access,
		method: "POST",
		path: modelApiPath(repo, `/discussions/${num}/title`),
		body: { title },
		schema: z.unknown(),
		repeatable: true,
	});
}
