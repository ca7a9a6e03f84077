import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";
import { type Webhook, WebhookAnswer, type WebhookSettings } from "./webhook.ts";

/** Not repeatable: look with `listWebhooks` for one with the same address after an unclear failure. */
export async function createWebhook(params: HubAccess & { readonly settings: WebhookSettings }): Promise<Webhook> {
	const { settings, ...access } = params;
	const answer = await requestJson({
		...access,
		method: "POST",
		path: "/api/settings/webhooks",
		body: settings,
		schema: WebhookAnswer,
	});
	return answer.webhook;
}
