import type { Configuration } from "../config/schema.ts";
import { createWebhook } from "../hub/create-webhook.ts";
import { deleteWebhook } from "../hub/delete-webhook.ts";
import { enableWebhook } from "../hub/enable-webhook.ts";
import { findWatchable, type Watchable } from "../hub/find-watchable.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listWebhooks } from "../hub/list-webhooks.ts";
import { updateWebhook } from "../hub/update-webhook.ts";
import type { WatchedItem, Webhook, WebhookSettings } from "../hub/webhook.ts";

export type LeftOut = { readonly name: string; readonly reason: string };

export type Registration = {
	readonly outcome: "created" | "updated" | "enabled" | "unchanged" | "removed" | "nothing-watched";
	/** Names that the webhook does not cover; the others are not spoiled by them. */
	readonly leftOut: readonly LeftOut[];
};

/** After so many names that the Hub refuses one by one, with none that it took, it is not the names. */
const MOST_REFUSED_ALONE = 3;
const REFUSALS: ReadonlySet<number> = new Set([400, 403, 404, 409, 422]);

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

function firstLine(error: unknown): string {
	return (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "";
}

/** What each name is on the Hub. A namespace that the Hub does not know cannot be told from the other kind. */
async function typesOf(
	hub: HubAccess,
	watch: Configuration["watch"],
	known: Map<string, WatchedItem["type"]>,
): Promise<{ readonly watched: readonly WatchedItem[]; readonly leftOut: readonly LeftOut[] }> {
	const watched: WatchedItem[] = [];
	const leftOut: LeftOut[] = [];
	for (const name of watch.namespaces) {
		const type = known.get(name) ?? (await findWatchable({ ...hub, name }))?.type;
		if (type === undefined) leftOut.push({ name, reason: "the Hub has no user or organisation of that name" });
		else {
			known.set(name, type);
			watched.push({ type, name });
		}
	}
	for (const name of watch.repos) watched.push({ type: "model", name });
	return { watched, leftOut };
}

async function reasonFor(hub: HubAccess, item: WatchedItem, refusal: unknown): Promise<string> {
	const found: Watchable | null | undefined = await findWatchable({ ...hub, name: item.name }).catch(() => undefined);
	if (found === null) return `the Hub shows no ${item.type} of that name`;
	if (found !== undefined && found.name !== item.name) return `it is called ${found.name} now`;
	return firstLine(refusal);
}

/**
 * Saves the webhook with every name that the Hub takes. One that it refuses makes it refuse the whole list, so the list is
 * halved until the names are found that it is about.
 */
async function saveAccepted(
	hub: HubAccess,
	settings: WebhookSettings,
	known: Webhook | undefined,
): Promise<readonly LeftOut[]> {
	let id = known?.id;
	const accepted: WatchedItem[] = [];
	const leftOut: LeftOut[] = [];

	async function save(watched: readonly WatchedItem[]): Promise<void> {
		const wanted = { ...settings, watched };
		if (id === undefined) id = (await createWebhook({ ...hub, settings: wanted })).id;
		else await updateWebhook({ ...hub, id, settings: wanted });
	}
	async function add(items: readonly WatchedItem[]): Promise<void> {
		const [first] = items;
		if (first === undefined) return;
		try {
			await save([...accepted, ...items]);
			accepted.push(...items);
		} catch (error) {
			if (!REFUSALS.has(hubStatus(error) ?? 0)) throw error;
			if (items.length > 1) {
				const half = Math.ceil(items.length / 2);
				await add(items.slice(0, half));
				await add(items.slice(half));
				return;
			}
			leftOut.push({ name: first.name, reason: await reasonFor(hub, first, error) });
			const isAll = leftOut.length === settings.watched.length || leftOut.length >= MOST_REFUSED_ALONE;
			if (accepted.length === 0 && isAll) throw error;
		}
	}
	await add(settings.watched);
	return leftOut;
}

/**
 * Makes sure that the Hub calls this server for everything that is watched: creates the webhook, brings an existing one
 * with the same address up to date, lifts a suspension, ends it where nothing is watched any more. A name that the Hub
 * does not take is left out and told. `renewSecret`: also where nothing seems to differ, since the Hub does not tell the
 * secret that it has.
 */
export async function registerWebhook(options: {
	readonly hub: HubAccess;
	readonly publicUrl: string;
	readonly secret: string;
	readonly watch: Configuration["watch"];
	readonly renewSecret: boolean;
	/** What was found of namespaces before; kept up to date. */
	readonly types?: Map<string, WatchedItem["type"]>;
	/** Names that the Hub refused a short while ago, so that it is not asked anew each time. */
	readonly refusedBefore?: readonly LeftOut[];
}): Promise<Registration> {
	const { hub, watch, secret, refusedBefore = [] } = options;
	const url = `${options.publicUrl}/webhooks/hub`;
	const found = await typesOf(hub, watch, options.types ?? new Map());
	const refused = refusedBefore.filter(({ name }) => found.watched.some((item) => item.name === name));
	const watched = found.watched.filter(({ name }) => !refused.some((one) => one.name === name));
	const leftOut = [...found.leftOut, ...refused];
	const known = (await listWebhooks(hub)).find((webhook) => webhook.url === url);
	if (watched.length === 0) {
		if (known === undefined) return { outcome: "nothing-watched", leftOut };
		await deleteWebhook({ ...hub, id: known.id });
		return { outcome: "removed", leftOut };
	}
	const settings: WebhookSettings = { url, secret, watched, domains: ["repo", "discussion"] };
	const changes = known === undefined || options.renewSecret || hasDrifted(known, settings);
	if (changes) leftOut.push(...(await saveAccepted(hub, settings, known)));
	if (known === undefined) return { outcome: "created", leftOut };
	if (known.disabled !== false) {
		await enableWebhook({ ...hub, id: known.id, enabled: true });
		return { outcome: "enabled", leftOut };
	}
	return { outcome: changes ? "updated" : "unchanged", leftOut };
}
