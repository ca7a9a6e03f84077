import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { createKeyedLock } from "../keyed-lock.ts";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";
import { jobSpecSchema } from "./job-spec.ts";

export const WATCHED_TYPES = ["dataset", "model", "space", "bucket", "kernel", "user", "org"] as const;

const webhookSchema = z.object({
	id: z.string(),
	owner: z.string(),
	/** `null`: it starts a job instead. */
	url: z.string().nullable(),
	job: jobSpecSchema.nullable().default(null),
	jobSourceId: z.string().nullable().default(null),
	secret: z.string().nullable(),
	watched: z.array(z.object({ type: z.enum(WATCHED_TYPES), name: z.string() })),
	domains: z.array(z.enum(["repo", "discussion"])),
	disabled: z.union([z.boolean(), z.literal("suspended-after-failure")]),
	consecutiveFailures: z.number(),
	lastTriggerAt: z.string().nullable(),
});
export type Webhook = z.infer<typeof webhookSchema>;

const deliverySchema = z.object({
	logId: z.string(),
	webhookId: z.string(),
	/** Sent as `Webhook-Id`: the same over all retries and replays. */
	deliveryId: z.string(),
	sequence: z.number(),
	createdAt: z.string(),
	payload: z.record(z.string(), z.unknown()),
	state: z.enum(["pending", "delivered", "failed"]),
	attempts: z.array(
		z.object({
			at: z.string(),
			status: z.number().nullable(),
			error: z.string().nullable(),
			milliseconds: z.number(),
			kind: z.enum(["delivery", "retry", "replay"]),
		}),
	),
});
export type Delivery = z.infer<typeof deliverySchema>;

export type WebhookStore = {
	all(): readonly Webhook[];
	get(id: string): Webhook | null;
	save(webhook: Webhook): Promise<void>;
	delete(id: string): Promise<void>;
	/** The activity of one webhook, oldest first. */
	log(webhookId: string): readonly Delivery[];
	saveDelivery(delivery: Delivery): Promise<void>;
	pending(): readonly Delivery[];
	nextSequence(): number;
};

const KEPT_DELIVERIES = 500;

export async function openWebhookStore(dataDirectory: string): Promise<WebhookStore> {
	const root = join(dataDirectory, "webhooks");
	const logRoot = join(root, "log");
	await mkdir(logRoot, { recursive: true });
	const file = join(root, "webhooks.json");
	const webhooks = new Map<string, Webhook>();
	for (const webhook of (await readJson(file, z.array(webhookSchema))) ?? []) webhooks.set(webhook.id, webhook);
	const deliveries = new Map<string, Delivery>();
	for (const name of await readdir(logRoot)) {
		if (!name.endsWith(".json")) {
			await rm(join(logRoot, name), { force: true });
			continue;
		}
		const delivery = await readJson(join(logRoot, name), deliverySchema);
		if (delivery !== null) deliveries.set(delivery.logId, delivery);
	}
	let sequence = Math.max(0, ...[...deliveries.values()].map((delivery) => delivery.sequence));
	const lock = createKeyedLock();
	const write = (): Promise<void> => lock("webhooks", () => writeJsonAtomically(file, [...webhooks.values()]));
	const ordered = (of: Iterable<Delivery>): Delivery[] => [...of].sort((a, b) => a.sequence - b.sequence);

	const store: WebhookStore = {
		all: () => [...webhooks.values()],
		get: (id) => webhooks.get(id) ?? null,
		async save(webhook) {
			webhooks.set(webhook.id, webhook);
			await write();
		},
		async delete(id) {
			webhooks.delete(id);
			await write();
			for (const delivery of store.log(id)) {
				deliveries.delete(delivery.logId);
				await rm(join(logRoot, `${delivery.logId}.json`), { force: true });
			}
		},
		log: (webhookId) => ordered([...deliveries.values()].filter((delivery) => delivery.webhookId === webhookId)),
		async saveDelivery(delivery) {
			if (!webhooks.has(delivery.webhookId)) return;
			deliveries.set(delivery.logId, delivery);
			await lock(delivery.logId, () => writeJsonAtomically(join(logRoot, `${delivery.logId}.json`), delivery));
			const settled = store.log(delivery.webhookId).filter((other) => other.state !== "pending");
			for (const old of settled.slice(0, Math.max(0, settled.length - KEPT_DELIVERIES))) {
				deliveries.delete(old.logId);
				await rm(join(logRoot, `${old.logId}.json`), { force: true });
			}
		},
		pending: () => ordered([...deliveries.values()].filter((delivery) => delivery.state === "pending")),
		nextSequence: () => ++sequence,
	};
	return store;
}
