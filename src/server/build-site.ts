import { systemClock } from "../clock.ts";
import { programVersion } from "../config/project-paths.ts";
import type { Database } from "../db/database.ts";
import { probeWrite } from "../db/retention.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import { freeBytes } from "../disk-full.ts";
import type { JobsContext } from "../jobs/context.ts";
import type { Log } from "../log.ts";
import { createApp, type WebApp } from "../web/create-app.ts";
import { databaseData } from "../web/database-data.ts";
import type { Metrics } from "../web/metrics.ts";
import { aboutOf } from "../web/views/about-page.ts";
import { readAccess } from "./hub-access.ts";
import { jobControlOf, operatorDataOf, signInOf } from "./member-pages.ts";
import type { Progress } from "./progress-channel.ts";
import type { Settings } from "./settings.ts";

const HUB_CHECK_SECONDS = 30;
const STORAGE_CHECK_SECONDS = 5;
/** Below this a delivery, or the files that the database needs for it, may find no room. */
const LEAST_FREE_BYTES = 64 * 1024 * 1024;

/** Throws where a delivery that came now could not be stored. */
export async function checkStorage(database: Database, dataDirectory: string, leastFreeBytes: number): Promise<void> {
	const free = freeBytes(dataDirectory);
	if (free < leastFreeBytes) throw new Error(`Only ${free} bytes are free where the data directory lies.`);
	await probeWrite(database.handle, systemClock.now());
}

/** What `/readyz` looks at. */
function healthChecks(database: Database, isRunning: () => boolean, hubUrl: string, dataDirectory: string) {
	return [
		{
			name: "storage",
			cacheSeconds: STORAGE_CHECK_SECONDS,
			check: () => checkStorage(database, dataDirectory, LEAST_FREE_BYTES),
		},
		{ name: "database", cacheSeconds: 1, check: () => database.check() },
		{
			name: "queue",
			cacheSeconds: 0,
			check: async () => {
				if (!isRunning()) throw new Error("The queue is not being worked on.");
			},
		},
		{
			name: "hub",
			cacheSeconds: HUB_CHECK_SECONDS,
			check: async () => {
				const response = await fetch(`${hubUrl}/api/models?limit=1`, { signal: AbortSignal.timeout(4000) });
				await response.body?.cancel();
				if (response.status >= 500) throw new Error(`The Hub answers ${response.status}.`);
			},
		},
	];
}

/** The webhooks, the pages and the metrics. */
export function buildSite(options: {
	readonly settings: Settings;
	readonly database: Database;
	readonly storeDelivery: StoreDelivery;
	/** For what people change on the pages. */
	readonly context: JobsContext;
	readonly isRunning: () => boolean;
	readonly progress: Progress;
	readonly metrics: Metrics;
	readonly log: Log;
}): WebApp {
	const { settings, database, storeDelivery, progress, metrics, log } = options;
	const { configuration, secrets } = settings;
	return createApp({
		data: databaseData({ database, clock: systemClock, audience: "everybody" }),
		operatorData: databaseData({ database, clock: systemClock, audience: "operator" }),
		signIn: signInOf(settings, database, systemClock),
		jobControl: jobControlOf(settings, options.context),
		operatorPage: operatorDataOf(settings, options.context, metrics),
		storeDelivery,
		operatorToken: secrets.operatorToken,
		webhookSecrets: [secrets.webhookSecret, secrets.previousWebhookSecret].filter((secret) => secret !== null),
		progress: progress.door,
		gitHubWebhookSecrets: [secrets.gitHubWebhookSecret, secrets.previousGitHubWebhookSecret].filter(
			(secret) => secret !== null,
		),
		maxBodyBytes: configuration.server.maxBodyBytes,
		hubUrl: configuration.hub.url,
		transferHosts: configuration.hub.transferHosts,
		botName: configuration.hub.mention,
		about: aboutOf(configuration, secrets.signingKey !== null),
		version: programVersion(),
		checks: healthChecks(
			database,
			options.isRunning,
			readAccess(configuration, secrets).hubUrl,
			configuration.database.dataDirectory,
		),
		metrics,
		clock: systemClock,
		log,
	});
}
