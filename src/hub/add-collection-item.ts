import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";
import { requestJson } from "./request-json.ts";

/** Adds a model to a collection; that it is there already counts as done. */
export async function addCollectionItem(
	params: HubAccess & { readonly slug: string; readonly repo: string; readonly note?: string },
): Promise<void> {
	const { slug, repo, note, ...access } = params;
	try {
		await requestJson({
			...access,
			method: "POST",
			path: `/api/collections/${slug.split("/").map(encodeURIComponent).join("/")}/items`,
			body: { item: { type: "model", id: repo }, ...(note === undefined ? {} : { note: note.slice(0, 500) }) },
			schema: z.unknown(),
			repeatable: true,
		});
	} catch (error) {
		if (hubStatus(error) !== 409) throw error;
	}
}
