import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

/** Needs write rights on the repo. */
export async function pinDiscussion(
	params: HubAccess & { readonly repo: string; readonly num: number; readonly pinned: boolean },
): Promise<void> {
	const { repo, num, pinned, ...access } = params;
	await requestJson({
		...access,
		method: "POST",
		path: modelApiPath(repo, `/discussions/${num}/pin`),
		body: { pinned },
		schema: z.unknown(),
		repeatable: true,
	});
}
