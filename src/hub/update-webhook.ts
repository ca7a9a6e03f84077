import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";
import { type Webhook, WebhookAnswer, type WebhookSettings } from "./webhook.ts";

/** Replaces the whole of a webhook's settings. */
export async function updateWebhook(
	params: HubAccess & { readonly id: string; readonly settings: WebhookSettings },
): Promise<Webhook> {
	const { id, settings, ...access } = params;
	const answer = await requestJson({
		...access,
		method: "POST",
		path: `/api/settings/webhooks/${encodeURIComponent(id)}`,
		body: settings,
		schema: WebhookAnswer,
		repeatable: true,
	});
	return answer.webhook;
}
