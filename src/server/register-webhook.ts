import type { Configuration } from "../config/schema.ts";
import { createWebhook } from "../hub/create-webhook.ts";
import { enableWebhook } from "../hub/enable-webhook.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { listWebhooks } from "../hub/list-webhooks.ts";
import { updateWebhook } from "../hub/update-webhook.ts";
import { userOverview } from "../hub/user-overview.ts";
import type { WatchedItem, Webhook, WebhookSettings } from "../hub/webhook.ts";

type Registration = "created" | "updated" | "enabled" | "unchanged" | "nothing-watched";

function namesOf(watched: readonly WatchedItem[]): string {
	return watched
		.map(({ type, name }) => `${type} ${name}`)
		.toSorted()
		.join("\n");
}

/** Whether somebody changed the webhook behind our back, or the configuration did. */
function hasDrifted(webhook: Webhook, settings: WebhookSettings): boolean {
	return (
		namesOf(webhook.watched) !== namesOf(settings.watched) ||
		settings.domains.some((domain) => !webhook.domains.includes(domain)) ||
		webhook.hasSecret === false
	);
}

/**
 * Makes sure that the Hub calls this server for everything that is watched: creates the webhook, brings an existing one
 * with the same address up to date, lifts a suspension. `renewSecret`: also where nothing seems to differ, since the Hub
 * does not tell the secret that it has.
 */
export async function registerWebhook(options: {
	readonly hub: HubAccess;
	readonly publicUrl: string;
	readonly secret: string;
	readonly watch: Configuration["watch"];
	readonly renewSecret: boolean;
}): Promise<Registration> {
	const { hub, watch, secret } = options;
	const url = `${options.publicUrl}/webhooks/hub`;
	const watched: WatchedItem[] = [];
	for (const name of watch.namespaces) {
		watched.push({ type: (await userOverview({ ...hub, name })) === null ? "org" : "user", name });
	}
	for (const name of watch.repos) watched.push({ type: "model", name });
	if (watched.length === 0) return "nothing-watched";
	const settings: WebhookSettings = { url, secret, watched, domains: ["repo", "discussion"] };
	const known = (await listWebhooks(hub)).find((webhook) => webhook.url === url);
	if (known === undefined) {
		await createWebhook({ ...hub, settings });
		return "created";
	}
	const changes = options.renewSecret || hasDrifted(known, settings);
	if (changes) await updateWebhook({ ...hub, id: known.id, settings });
	if (known.disabled !== false) {
		await enableWebhook({ ...hub, id: known.id, enabled: true });
		return "enabled";
	}
	return changes ? "updated" : "unchanged";
}
