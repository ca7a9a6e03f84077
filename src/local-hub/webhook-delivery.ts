import { z } from "zod";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Faults } from "./faults.ts";
import { newId } from "./identifiers.ts";
import type { JobSpec } from "./job-spec.ts";
import { domainOf, type HubEvent } from "./webhook-payload.ts";
import type { Delivery, Webhook, WebhookStore } from "./webhook-store.ts";

type DeliveryOptions = {
	/** The waits before the second, third, … attempt. */
	readonly retryDelaysMilliseconds: readonly number[];
	readonly timeoutMilliseconds: number;
	/** So many failed attempts in a row suspend a webhook. */
	readonly suspendAfterFailures: number;
};

export type WebhookDispatcher = {
	/** Stores a delivery for each webhook that watches and may see the repo; sending goes on behind. */
	publish(event: HubEvent, maySee: (ownerName: string) => boolean): Promise<void>;
	/** Sends a logged delivery again, at once, with its first `Webhook-Id`; answers the receiver's status (0: no answer). */
	replay(webhook: Webhook, logId: string): Promise<number | null>;
	/** Takes up what an earlier process left pending. */
	resume(): void;
	/** Resolves when nothing is being sent or waiting for a retry. */
	idle(): Promise<void>;
	close(): Promise<void>;
};

const repoOf = z.object({ repo: z.object({ name: z.string(), type: z.string() }) });

function watches(webhook: Webhook, event: HubEvent, ownerType: "user" | "org" | null): boolean {
	if (!webhook.domains.includes(domainOf(event.event.scope))) return false;
	const namespace = event.repo.name.slice(0, event.repo.name.indexOf("/"));
	return webhook.watched.some((watched) =>
		watched.type === "user" || watched.type === "org"
			? watched.type === ownerType && watched.name === namespace
			: watched.type === event.repo.type && watched.name === event.repo.name,
	);
}

/**
 * Delivers events to webhooks, again where that failed. Long, since its functions share what is under way; each is one
 * stage of a delivery.
 */
export function createWebhookDispatcher(deps: {
	store: WebhookStore;
	clock: Clock;
	log: Log;
	faults: Faults;
	options: DeliveryOptions;
	ownerType: (namespace: string) => "user" | "org" | null;
	startJob: (
		spec: JobSpec,
		by: {
			readonly webhook: string;
			readonly owner: string;
			readonly environment: Readonly<Record<string, string>>;
		},
	) => Promise<void>;
}): WebhookDispatcher {
	const { store, clock, log, faults, options, ownerType } = deps;
	const abort = new AbortController();
	const timers = new Map<ReturnType<typeof setTimeout>, string>();
	// one sender a webhook: first attempts leave in the order of the events
	const tails = new Map<string, Promise<void>>();
	let active = 0;
	let closed = false;
	const waiting = new Set<() => void>();

	function settleIdle(): void {
		if (active > 0 || timers.size > 0) return;
		for (const resolve of waiting) resolve();
		waiting.clear();
	}

	/** Starts the webhook's job with the event in its environment; a job that cannot be started counts as a failure. */
	async function startJob(
		webhook: Webhook,
		delivery: Delivery,
	): Promise<{ status: number | null; error: string | null }> {
		try {
			if (webhook.job === null) throw new Error("the webhook has neither a url nor a job");
			const { repo } = repoOf.parse(delivery.payload);
			await deps.startJob(webhook.job, {
				webhook: webhook.id,
				owner: webhook.owner,
				environment: {
					WEBHOOK_PAYLOAD: JSON.stringify(delivery.payload),
					WEBHOOK_REPO_ID: repo.name,
					WEBHOOK_REPO_TYPE: repo.type,
					WEBHOOK_ID: delivery.deliveryId,
					...(webhook.secret === null ? {} : { WEBHOOK_SECRET: webhook.secret }),
				},
			});
			return { status: 200, error: null };
		} catch (error) {
			return { status: null, error: error instanceof Error ? error.message : "the job could not be started" };
		}
	}

	async function send(webhook: Webhook, delivery: Delivery): Promise<{ status: number | null; error: string | null }> {
		if (faults.takeDroppedDelivery()) return { status: 200, error: "dropped by a fault switch" };
		const { url } = webhook;
		if (url === null) return await startJob(webhook, delivery);
		const headers: Record<string, string> = {
			"Content-Type": "application/json",
			"User-Agent": "local-hub-webhooks",
			"Webhook-Id": delivery.deliveryId,
		};
		if (webhook.secret !== null) headers["X-Webhook-Secret"] = webhook.secret;
		const once = async (): Promise<number> => {
			const response = await fetch(url, {
				method: "POST",
				headers,
				body: JSON.stringify(delivery.payload),
				redirect: "manual",
				signal: AbortSignal.any([abort.signal, AbortSignal.timeout(options.timeoutMilliseconds)]),
			});
			await response.body?.cancel();
			return response.status;
		};
		try {
			const status = await once();
			if (faults.takeDuplicatedDelivery()) await once();
			return { status, error: null };
		} catch (error) {
			const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
			return { status: null, error: cause instanceof Error ? cause.message : "no answer" };
		}
	}

	async function attempt(
		webhookId: string,
		delivery: Delivery,
		kind: "delivery" | "retry" | "replay",
	): Promise<number> {
		const webhook = store.get(webhookId);
		if (webhook === null || closed) return 0;
		if (kind !== "replay" && webhook.disabled !== false) {
			await store.saveDelivery({ ...delivery, state: "failed" });
			return 0;
		}
		const started = clock.now();
		const { status, error } = await send(webhook, delivery);
		if (closed) return status ?? 0;
		const milliseconds = clock.now().getTime() - started.getTime();
		const ok = status !== null && status >= 200 && status < 300;
		const attempts = [...delivery.attempts, { at: started.toISOString(), status, error, milliseconds, kind }];
		const tries = attempts.filter((one) => one.kind !== "replay").length;
		const again = !ok && kind !== "replay" ? options.retryDelaysMilliseconds[tries - 1] : undefined;
		const state = ok ? "delivered" : again === undefined ? (kind === "replay" ? delivery.state : "failed") : "pending";
		const after: Delivery = { ...delivery, attempts, state };
		await store.saveDelivery(after);

		const current = store.get(webhookId);
		if (current !== null) {
			const consecutiveFailures = ok ? 0 : current.consecutiveFailures + 1;
			const suspend = current.disabled === false && consecutiveFailures >= options.suspendAfterFailures;
			if (suspend) log.warn("A webhook was suspended after repeated failure", { webhook: webhookId, status, error });
			await store.save({
				...current,
				consecutiveFailures,
				disabled: suspend ? "suspended-after-failure" : current.disabled,
				lastTriggerAt: started.toISOString(),
			});
		}
		if (again !== undefined && !closed) {
			const timer = setTimeout(() => {
				timers.delete(timer);
				enqueue(after, "retry");
			}, again);
			timers.set(timer, webhookId);
		}
		return status ?? 0;
	}

	function enqueue(delivery: Delivery, kind: "delivery" | "retry"): void {
		if (closed) return;
		active++;
		const before = tails.get(delivery.webhookId) ?? Promise.resolve();
		const mine = before
			.then(() => attempt(delivery.webhookId, delivery, kind))
			.then(
				() => undefined,
				(error: unknown) => log.error("A webhook delivery could not be recorded", { error }),
			)
			.finally(() => {
				active--;
				if (tails.get(delivery.webhookId) === mine) tails.delete(delivery.webhookId);
				settleIdle();
			});
		tails.set(delivery.webhookId, mine);
	}

	return {
		async publish(event, maySee) {
			const namespace = event.repo.name.slice(0, event.repo.name.indexOf("/"));
			for (const webhook of store.all()) {
				if (webhook.disabled !== false || !watches(webhook, event, ownerType(namespace))) continue;
				if (!maySee(webhook.owner)) continue;
				const delivery: Delivery = {
					logId: newId(),
					webhookId: webhook.id,
					deliveryId: newId(),
					sequence: store.nextSequence(),
					createdAt: clock.now().toISOString(),
					payload: { ...event, webhook: { id: webhook.id, version: 3 } },
					state: "pending",
					attempts: [],
				};
				await store.saveDelivery(delivery);
				enqueue(delivery, "delivery");
			}
		},
		async replay(webhook, logId) {
			const delivery = store.log(webhook.id).find((one) => one.logId === logId);
			return delivery === undefined ? null : attempt(webhook.id, delivery, "replay");
		},
		resume() {
			for (const delivery of store.pending()) enqueue(delivery, delivery.attempts.length === 0 ? "delivery" : "retry");
		},
		idle() {
			return new Promise((resolve) => {
				waiting.add(resolve);
				settleIdle();
			});
		},
		async close() {
			closed = true;
			abort.abort();
			for (const timer of timers.keys()) clearTimeout(timer);
			timers.clear();
			await Promise.allSettled(tails.values());
		},
	};
}
