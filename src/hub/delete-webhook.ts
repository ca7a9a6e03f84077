import { z } from "zod";
import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

export async function deleteWebhook(params: HubAccess & { readonly id: string }): Promise<void> {
	const { id, ...access } = params;
	await requestJson({
		...access,
		method: "DELETE",
		path: `/api/settings/webhooks/${encodeURIComponent(id)}`,
		schema: z.unknown(),
	});
}
