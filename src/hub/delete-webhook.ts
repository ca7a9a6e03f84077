import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";
import { requestJson } from "./request-json.ts";

/** One that is gone already is as good as deleted. */
export async function deleteWebhook(params: HubAccess & { readonly id: string }): Promise<void> {
	const { id, ...access } = params;
	try {
		await requestJson({
			...access,
			method: "DELETE",
			path: `/api/settings/webhooks/${encodeURIComponent(id)}`,
			schema: z.unknown(),
		});
	} catch (error) {
		if (hubStatus(error) !== 404) throw error;
	}
}
