import { z } from "zod";

export const WatchedItem = z.object({
	type: z.enum(["dataset", "model", "space", "bucket", "kernel", "user", "org"]),
	name: z.string(),
});
export type WatchedItem = z.infer<typeof WatchedItem>;

const WebhookDomain = z.enum(["repo", "discussion"]);
type WebhookDomain = z.infer<typeof WebhookDomain>;

export const Webhook = z.object({
	id: z.string(),
	url: z.string().nullish(),
	/** A string when the Hub gave up on it: `suspended-after-failure`. */
	disabled: z.union([z.boolean(), z.string()]),
	watched: z.array(WatchedItem),
	domains: z.array(z.string()),
	hasSecret: z.boolean().optional(),
});
export type Webhook = z.infer<typeof Webhook>;

/** The Hub wraps single webhooks and lists them bare. */
export const WebhookAnswer = z.object({ webhook: Webhook });

/** What `POST /api/settings/webhooks[/{id}]` takes. An update that leaves out `watched` would empty the list. */
export type WebhookSettings = {
	readonly url: string;
	readonly secret?: string;
	readonly watched: readonly WatchedItem[];
	readonly domains: readonly WebhookDomain[];
};
