import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../clock.ts";
import type { Database } from "../db/database.ts";
import { getDelivery } from "../db/deliveries.ts";
import { isUnused } from "../db/dump.ts";
import { listDueOutboxes, listJobs } from "../db/jobs.ts";
import { storeDelivery } from "../deliveries/store-delivery.ts";
import { freeBytes } from "../disk-full.ts";
import { rebuild } from "../jobs/rebuild.ts";
import type { Log } from "../log.ts";
import { listPublished } from "../publish/list-published.ts";
import type { DeliveryOutcome } from "../records/delivery.ts";
import { isFinished, type JobRecord } from "../records/job.ts";
import { inspectSource } from "../verify/inspect-source.ts";
import { createMetrics } from "../web/metrics.ts";
import { buildEngine } from "./build-engine.ts";
import { publisherAccess, readAccess } from "./hub-access.ts";
import { openProgress } from "./progress-channel.ts";
import type { Settings } from "./settings.ts";

export type OnceReport = {
	readonly outcome: DeliveryOutcome;
	readonly detail: string | null;
	readonly jobs: readonly Pick<JobRecord, "id" | "sourceRepo" | "state" | "statusText" | "refusal">[];
	/** Nothing goes on before somebody does something: an approval, money, a free machine. */
	readonly isHeld: boolean;
};

const LOOK_MILLISECONDS = 500;
/** A job that waits so long, and nothing else goes on, waits for people. */
const HELD_MILLISECONDS = 60_000;
/** What is left to tell is tried so long; the next event finds the rest. */
const TELLING_MILLISECONDS = 120_000;
const ALL = { limit: 200 } as const;

/**
 * Works on one event to its end, without a server: the delivery, the job that it asks for, its announcement. An empty
 * database is filled from the Hub first, so that what is published is known. Closes the database.
 */
export async function runOnce(options: {
	readonly settings: Settings;
	readonly database: Database;
	readonly event: { readonly id: string | null; readonly body: unknown };
	readonly log: Log;
	readonly signal: AbortSignal;
}): Promise<OnceReport> {
	const { database, event, log, signal } = options;
	const begun = systemClock.now();
	// Pushes that nothing told of are not this event's business.
	const settings: Settings = {
		...options.settings,
		configuration: {
			...options.settings.configuration,
			sweep: { ...options.settings.configuration.sweep, enabled: false },
		},
	};
	const { configuration, secrets } = settings;
	const metrics = createMetrics(() => freeBytes(configuration.database.dataDirectory));
	const progress = await openProgress(configuration, database);
	const { engine, context } = buildEngine({ settings, database, progress, metrics, log });
	try {
		if (await isUnused(database.handle)) {
			const hub = publisherAccess(configuration, secrets);
			const { repos, variants } = await rebuild({
				database,
				clock: systemClock,
				published: listPublished({ ...hub, namespace: configuration.hub.namespace }),
				inspectSource: (source) =>
					inspectSource({
						...readAccess(configuration, secrets),
						...source,
						limits: { maximumWeightBytes: Number.MAX_SAFE_INTEGER },
					}),
			});
			log.info("What is published was read from the Hub", { repos, variants });
		}
		await engine.start();
		const key = event.id ?? createHash("sha256").update(JSON.stringify(event.body)).digest("hex");
		const { id } = await storeDelivery(context, {
			source: "hub",
			dedupeKey: `webhook:${key}`,
			receivedAt: systemClock.now(),
			body: event.body,
		});
		return await waitForEnd(database, id, begun, signal);
	} finally {
		await engine.stop();
		await database.close();
	}
}

async function waitForEnd(
	database: Database,
	deliveryId: string,
	begun: Date,
	signal: AbortSignal,
): Promise<OnceReport> {
	let heldSince: number | null = null;
	let toldSince: number | null = null;
	for (;;) {
		const delivery = await getDelivery(database.handle, deliveryId);
		const { items: jobs } = await listJobs(database.handle, ALL);
		const open = jobs.filter(({ state }) => !isFinished(state));
		const report = (isHeld: boolean): OnceReport => ({
			outcome: delivery?.outcome ?? "failed",
			detail: delivery?.detail ?? null,
			// A database that is kept from event to event, or was rebuilt, holds jobs that ended long ago.
			jobs: jobs.filter(({ state, updatedAt }) => !isFinished(state) || updatedAt >= begun),
			isHeld,
		});
		if (signal.aborted) return report(open.length > 0);
		if (delivery !== null && delivery.outcome !== "pending") {
			const isWaiting = open.length > 0 && open.every(({ state }) => state === "waiting");
			heldSince = isWaiting ? (heldSince ?? Date.now()) : null;
			if (heldSince !== null && Date.now() - heldSince > HELD_MILLISECONDS) return report(true);
			if (open.length === 0) {
				toldSince ??= Date.now();
				const later = new Date(Date.now() + TELLING_MILLISECONDS);
				const untold = await listDueOutboxes(database.handle, later, 1);
				if (untold.length === 0 || Date.now() - toldSince > TELLING_MILLISECONDS) return report(false);
			}
		}
		await sleep(LOOK_MILLISECONDS);
	}
}
