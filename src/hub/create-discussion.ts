import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

/** Not repeatable: after an unclear failure look for the title with `listDiscussions` first. */
export function createDiscussion(
	params: HubAccess & { readonly repo: string; readonly title: string; readonly description: string },
): Promise<{ num: number; url: string }> {
	const { repo, title, description, ...access } = params;
	return requestJson({
		...access,
		method: "POST",
		path: modelApiPath(repo, "/discussions"),
		body: { title, description },
		schema: z.object({ num: z.int(), url: z.string() }),
	});
}
