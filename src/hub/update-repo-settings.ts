import { z } from "zod";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

export type RepoGating = false | "auto" | "manual";

/** Visibility and gating of a model repo in one call. */
export async function updateRepoSettings(
	params: HubAccess & {
		readonly repo: string;
		readonly settings: { readonly visibility?: "public" | "private"; readonly gated?: RepoGating };
	},
): Promise<void> {
	const { repo, settings, ...access } = params;
	await requestJson({
		...access,
		method: "PUT",
		path: modelApiPath(repo, "/settings"),
		body: settings,
		schema: z.unknown(),
	});
}
