import { z } from "zod";
import { type HubWriteAccess, modelApiPath } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";
import { requestJson } from "./request-json.ts";

/** Names a commit of a model repo. `taken`: the name stands for a commit already, and goes on doing so. */
export async function createTag(
	params: HubWriteAccess & { readonly repo: string; readonly tag: string; readonly revision: string },
): Promise<"created" | "taken"> {
	const { repo, tag, revision, ...access } = params;
	try {
		await requestJson({
			...access,
			method: "POST",
			path: modelApiPath(repo, `/tag/${encodeURIComponent(revision)}`),
			body: { tag },
			schema: z.unknown(),
		});
		return "created";
	} catch (error) {
		if (hubStatus(error) === 409) return "taken";
		throw error;
	}
}
