import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { systemClock } from "../clock.ts";
import { programVersion } from "../config/project-paths.ts";
import type { Database } from "../db/database.ts";
import { type StoreDelivery, storeDelivery } from "../deliveries/store-delivery.ts";
import { freeBytes } from "../disk-full.ts";
import type { Log } from "../log.ts";
import { createMetrics } from "../web/metrics.ts";
import { buildEngine } from "./build-engine.ts";
import { buildSite } from "./build-site.ts";
import { openProgress } from "./progress-channel.ts";
import type { Settings } from "./settings.ts";
import { keepLookingOverIssues, keepPolling, keepWebhook } from "./stay-reachable.ts";

async function listen(server: Server, host: string, port: number): Promise<string> {
	server.listen(port, host);
	// "error" rejects the wait.
	await once(server, "listening");
	const address = server.address();
	if (address === null || typeof address === "string") return `http://${host}:${port}`;
	const name = address.family === "IPv6" ? `[${address.address}]` : address.address;
	return `http://${name}:${address.port}`;
}

/** Lets the Hub and GitHub reach the bot where they can, and looks by itself where they cannot; until `signal` aborts. */
function reachOut(settings: Settings, store: StoreDelivery, log: Log, signal: AbortSignal): void {
	const { configuration, secrets } = settings;
	const { publicUrl } = configuration.server;
	const situation = { configuration, secrets, log, signal };
	const looking = { ...situation, storeDelivery: store, clock: systemClock };
	if (secrets.webhookSecret === null || publicUrl === null) void keepPolling(looking);
	void keepLookingOverIssues(looking);
	if (secrets.webhookSecret === null) {
		log.warn("No webhook secret is set: every delivery is refused, only the sweep finds pushes", {
			remedy: "Set YAQA_BOT_WEBHOOK_SECRET.",
		});
	} else if (publicUrl === null) {
		log.warn("server.publicUrl is not set: the webhook is not registered", {
			remedy: `Make one in the Hub's settings, to ADDRESS/webhooks/hub with the secret, or set server.publicUrl.`,
		});
	} else {
		void keepWebhook({ ...situation, publicUrl });
	}
}

/**
 * Serves until `signal` aborts, then lets what runs come to its end. `onUp` is told the address. `onDeadline`: stopping
 * took longer than `server.shutdownSeconds`. Closes the database.
 */
export async function runServer(options: {
	readonly settings: Settings;
	readonly database: Database;
	readonly log: Log;
	readonly signal: AbortSignal;
	readonly onUp: (address: string) => void;
	readonly onDeadline: () => void;
}): Promise<void> {
	const { settings, database, log, signal } = options;
	const { configuration } = settings;
	const metrics = createMetrics(() => freeBytes(configuration.database.dataDirectory));
	const progress = await openProgress(configuration, database);
	const { engine, context } = buildEngine({ settings, database, progress, metrics, log });
	const store: StoreDelivery = (delivery) => storeDelivery(context, delivery);
	const site = buildSite({
		settings,
		database,
		storeDelivery: store,
		context,
		isRunning: engine.isRunning,
		progress,
		metrics,
		log,
	});
	const server = createServer(site.app);
	// A sender that dawdles must not hold a connection; event streams are answers and have no such limit.
	server.requestTimeout = 30_000;
	server.headersTimeout = 15_000;
	const reaching = new AbortController();
	try {
		const address = await listen(server, configuration.server.host, configuration.server.port);
		await engine.start();
		const shown = configuration.server.publicUrl ?? address;
		log.info("yaqa-bot is up", {
			address: shown,
			hub: configuration.hub.url,
			database: database.kind,
			runner: configuration.runner.kind,
			watches: configuration.watch.namespaces.length + configuration.watch.repos.length,
			version: programVersion(),
		});
		options.onUp(shown);
		reachOut(settings, store, log, reaching.signal);
		if (!signal.aborted) await once(signal, "abort");
		const { shutdownSeconds } = configuration.server;
		log.info("Stopping", { signal: String(signal.reason), deadlineSeconds: shutdownSeconds });
	} finally {
		reaching.abort();
		const deadline = setTimeout(() => {
			log.warn("The deadline for stopping has passed");
			options.onDeadline();
		}, configuration.server.shutdownSeconds * 1000);
		deadline.unref();
		site.close();
		server.close();
		server.closeIdleConnections();
		await engine.stop();
		server.closeAllConnections();
		await database.close();
		clearTimeout(deadline);
		log.info("Stopped");
	}
}
