import type { HubAccess } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";
import { type Webhook, WebhookAnswer } from "./webhook.ts";

/** Also lifts the suspension that the Hub imposes after repeated failures. */
export async function enableWebhook(
	params: HubAccess & { readonly id: string; readonly enabled: boolean },
): Promise<Webhook> {
	const { id, enabled, ...access } = params;
	const answer = await requestJson({
		...access,
		method: "POST",
		path: `/api/settings/webhooks/${encodeURIComponent(id)}/${enabled ? "enable" : "disable"}`,
		schema: WebhookAnswer,
		repeatable: true,
	});
	return answer.webhook;
}
