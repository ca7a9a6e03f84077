import type { Express } from "express";
import express from "express";
import type { Clock } from "../clock.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import type { Log } from "../log.ts";
import type { WebData } from "./data.ts";
import { errorPage } from "./error-page.ts";
import { createHealth, type HealthCheck } from "./health-checks.ts";
import { createJobStreams } from "./job-stream.ts";
import { jobView } from "./job-view.ts";
import type { Metrics } from "./metrics.ts";
import { isSentBy } from "./operator-token.ts";
import { catalogueRoutes } from "./routes/catalogue-routes.ts";
import { deliveryRoutes } from "./routes/delivery-routes.ts";
import { feedRoutes, readOnly } from "./routes/feed-routes.ts";
import { gitHubWebhook } from "./routes/github-webhook.ts";
import { healthRoutes } from "./routes/health-routes.ts";
import { helpRoutes } from "./routes/help-routes.ts";
import { hubWebhook } from "./routes/hub-webhook.ts";
import { jobRoutes } from "./routes/job-routes.ts";
import { modelRoutes } from "./routes/model-routes.ts";
import { type ProgressIngestOptions, progressIngest } from "./routes/progress-ingest.ts";
import { siteAssets } from "./routes/site-assets.ts";
import { variantRoutes } from "./routes/variant-routes.ts";
import { createSite } from "./site.ts";
import type { About } from "./views/about-page.ts";

export type WebOptions = {
	/** What everybody may see, and all there is. */
	readonly data: WebData;
	readonly operatorData?: WebData;
	/** Who sends it sees all there is; `null` or absent: nobody does. */
	readonly operatorToken?: string | null;
	/** Durable when it returns. The same dedupe key twice is stored and worked on once. */
	readonly storeDelivery: StoreDelivery;
	readonly webhookSecrets: readonly string[];
	/** What GitHub signs its deliveries with: current and previous. */
	readonly gitHubWebhookSecrets: readonly string[];
	/** Where runs elsewhere tell of their progress. */
	readonly progress: Pick<ProgressIngestOptions, "isAllowed" | "store">;
	readonly maxBodyBytes: number;
	readonly hubUrl: string;
	/** As people mention it, without `@`. */
	readonly botName: string;
	readonly version: string;
	readonly about: About;
	readonly checks: readonly HealthCheck[];
	readonly metrics: Metrics;
	readonly clock: Clock;
	readonly log: Log;
	readonly maximumStreams?: number;
	readonly maximumStreamsPerAddress?: number;
	readonly pollMilliseconds?: number;
	readonly keepAliveMilliseconds?: number;
};

export type WebApp = {
	readonly app: Express;
	/** Ends the event streams; call before closing the server. */
	readonly close: () => void;
};

const SECURITY_HEADERS = {
	"Content-Security-Policy":
		"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
	"X-Content-Type-Options": "nosniff",
	"Referrer-Policy": "strict-origin-when-cross-origin",
	"X-Frame-Options": "DENY",
	"Cross-Origin-Opener-Policy": "same-origin",
	"Permissions-Policy": "camera=(), geolocation=(), microphone=()",
};

/** The HTTP side: webhook ingest, pages with their JSON twins, event streams, health and metrics. */
export function createApp(options: WebOptions): WebApp {
	const { data, clock, log, hubUrl, metrics, maxBodyBytes } = options;
	const files = siteAssets();
	const pagesOf = (shown: WebData) => {
		const site = createSite({
			data: shown,
			hubUrl,
			context: () => ({
				botName: options.botName,
				hubUrl,
				version: options.version,
				now: clock.now(),
				assets: files.assets,
			}),
		});
		const streams = createJobStreams({
			data: shown,
			log,
			maximumClients: options.maximumStreams ?? 200,
			maximumPerAddress: options.maximumStreamsPerAddress ?? 20,
			pollMilliseconds: options.pollMilliseconds ?? 500,
			keepAliveMilliseconds: options.keepAliveMilliseconds ?? 15_000,
			view: (job, progress) => jobView(site, job, progress),
		});
		const router = express.Router();
		router.use(
			catalogueRoutes(site),
			variantRoutes(site),
			modelRoutes(site),
			jobRoutes(site, streams),
			deliveryRoutes(site),
			helpRoutes(site, options.about),
			feedRoutes(site),
		);
		return { site, streams, router };
	};
	const everybody = pagesOf(data);
	const operator = pagesOf(options.operatorData ?? data);
	const { site } = everybody;
	const ingest = { maxBodyBytes, store: options.storeDelivery, clock, log, onOutcome: metrics.countIngest };

	const app = express();
	app.disable("x-powered-by");
	app.set("query parser", "simple");
	// Behind a proxy of one's own the visitor's address is what the proxy says; nobody else is believed.
	app.set("trust proxy", "loopback, linklocal, uniquelocal");
	app.use((_request, response, next) => {
		response.set(SECURITY_HEADERS);
		next();
	});
	app.use(hubWebhook({ ...ingest, secrets: options.webhookSecrets }));
	app.use(gitHubWebhook({ ...ingest, secrets: options.gitHubWebhookSecrets }));
	app.use(progressIngest({ ...options.progress, maxBodyBytes, log }));
	app.use(files.router);
	app.use(
		healthRoutes({
			version: options.version,
			health: createHealth(options.checks, clock),
			metrics,
			data,
			clients: () => everybody.streams.clients() + operator.streams.clients(),
		}),
	);
	app.use(readOnly(site));
	app.use((request, response, next) => {
		const isOperator = isSentBy(request, options.operatorToken ?? null);
		// What only the operator sees must not come out of a cache for anybody else.
		if (isOperator) response.set("Cache-Control", "no-store").vary("Authorization");
		(isOperator ? operator : everybody).router(request, response, next);
	});
	app.use((request, response) => site.notFound(request, response, "There is no such page."));
	app.use(errorPage(site, log));
	return {
		app,
		close: () => {
			everybody.streams.close();
			operator.streams.close();
		},
	};
}
