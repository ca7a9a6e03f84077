import compression from "compression";
import type { Express, Request } from "express";
import express from "express";
import type { Clock } from "../clock.ts";
import type { JobControl } from "../commands/job-control.ts";
import type { StoreDelivery } from "../deliveries/store-delivery.ts";
import { fileOrigins } from "../hub/allowed-url.ts";
import type { Log } from "../log.ts";
import type { WebData } from "./data.ts";
import { errorPage } from "./error-page.ts";
import { createHealth, type HealthCheck } from "./health-checks.ts";
import { countClients } from "./job-stream.ts";
import type { Metrics } from "./metrics.ts";
import type { OperatorData } from "./operator-data.ts";
import { isSentBy } from "./operator-token.ts";
import { createPages, type Pages, type PagesOptions } from "./pages.ts";
import { readOnly } from "./routes/feed-routes.ts";
import { gitHubWebhook } from "./routes/github-webhook.ts";
import { healthRoutes } from "./routes/health-routes.ts";
import { hubWebhook } from "./routes/hub-webhook.ts";
import { type ProgressIngestOptions, progressIngest } from "./routes/progress-ingest.ts";
import { siteAssets } from "./routes/site-assets.ts";
import { createSignIn, type SignIn, type SignInSetup } from "./sign-in/create-sign-in.ts";
import type { Viewer } from "./sign-in/viewer.ts";
import type { Site } from "./site.ts";
import type { About } from "./views/about-page.ts";

export type WebOptions = {
	/** What everybody may see, and all there is. */
	readonly data: WebData;
	readonly operatorData?: WebData;
	/** Who sends it sees all there is; `null` or absent: nobody does. */
	readonly operatorToken?: string | null;
	/** Signing in with an account of the Hub; `null` or absent: nobody can. */
	readonly signIn?: SignInSetup | null;
	/** What signed-in people may do to jobs. */
	readonly jobControl?: JobControl | null;
	/** What stands on the page /operator. */
	readonly operatorPage?: OperatorData | null;
	/** Durable when it returns. The same dedupe key twice is stored and worked on once. */
	readonly storeDelivery: StoreDelivery;
	readonly webhookSecrets: readonly string[];
	/** What GitHub signs its deliveries with: current and previous. */
	readonly gitHubWebhookSecrets: readonly string[];
	/** Where runs elsewhere tell of their progress. */
	readonly progress: Pick<ProgressIngestOptions, "isAllowed" | "store">;
	readonly maxBodyBytes: number;
	readonly hubUrl: string;
	/** Where else files of that Hub lie. */
	readonly transferHosts?: readonly string[];
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

/** Everybody's pages, the operator's, and those of who is signed in. */
function allPages(options: WebOptions, files: ReturnType<typeof siteAssets>) {
	const { data, clock, log, signIn: setup = null } = options;
	const shared: PagesOptions = {
		hubUrl: options.hubUrl,
		about: options.about,
		log,
		clients: countClients(options.maximumStreams ?? 200, options.maximumStreamsPerAddress ?? 20),
		pollMilliseconds: options.pollMilliseconds ?? 500,
		keepAliveMilliseconds: options.keepAliveMilliseconds ?? 15_000,
		jobControl: options.jobControl ?? null,
		origin: setup === null ? null : new URL(setup.publicUrl).origin,
		operatorData: options.operatorPage ?? null,
		pictures: new Map(),
	};
	const contextOf = (viewer: () => Viewer | null) => () => ({
		botName: options.botName,
		hubUrl: options.hubUrl,
		version: options.version,
		now: clock.now(),
		assets: files.assets,
		signIn: setup !== null,
		viewer: viewer(),
	});
	const nobody = contextOf(() => null);
	const everybody = createPages(shared, { data, context: nobody, isOperator: () => false, everybody: null });
	const operator = createPages(shared, {
		data: options.operatorData ?? data,
		context: nobody,
		isOperator: () => true,
		everybody: null,
	});
	const signIn: SignIn | null =
		setup === null
			? null
			: createSignIn(setup, {
					everybody: everybody.site,
					clock,
					log,
					pagesFor: (viewer, audience) =>
						createPages(shared, {
							data: setup.dataFor(audience),
							context: contextOf(viewer),
							isOperator: () => viewer().isOperator,
							everybody,
						}),
				});
	return { everybody, operator, signIn };
}

/** The HTTP side: webhook ingest, pages with their JSON twins, event streams, health and metrics. */
export function createApp(options: WebOptions): WebApp {
	const { data, clock, log, metrics, maxBodyBytes } = options;
	const files = siteAssets(fileOrigins(options.hubUrl, options.transferHosts));
	const { everybody, operator, signIn } = allPages(options, files);
	/** As who sends a request sees the site, once that is known. */
	const seen = new WeakMap<Request, Site>();
	const siteOf = (request: Request): Site => seen.get(request) ?? everybody.site;
	const ingest = { maxBodyBytes, store: options.storeDelivery, clock, log, onOutcome: metrics.countIngest };

	async function pagesOf(request: Request): Promise<Pages> {
		if (isSentBy(request, options.operatorToken ?? null)) return operator;
		return (await signIn?.pagesOf(request)) ?? everybody;
	}

	const app = express();
	app.disable("x-powered-by");
	app.set("query parser", "simple");
	// Behind a proxy of one's own the visitor's address is what the proxy says; nobody else is believed.
	app.set("trust proxy", "loopback, linklocal, uniquelocal");
	app.use((_request, response, next) => {
		response.set(SECURITY_HEADERS);
		next();
	});
	// Streams go out as they come; what is small or a picture gains nothing. Pages for certain eyes stay as they are: how
	// far they shrink would tell what stands in them beside a text that somebody else put into their address.
	app.use(
		compression({
			filter: (request, response) =>
				!String(response.getHeader("Content-Type")).startsWith("text/event-stream") &&
				response.getHeader("Cache-Control") !== "no-store" &&
				compression.filter(request, response),
		}),
	);
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
			clients: () => everybody.streams.clients() + operator.streams.clients() + (signIn?.clients() ?? 0),
		}),
	);
	if (signIn !== null) app.use(signIn.router);
	app.use(async (request, response, next) => {
		const pages = await pagesOf(request);
		// What only some see must not come out of a cache for anybody else.
		if (pages !== everybody) response.set("Cache-Control", "no-store");
		seen.set(request, pages.site);
		response.vary(signIn === null ? "Authorization" : "Authorization, Cookie");
		pages.router(request, response, next);
	});
	app.use(readOnly(siteOf));
	app.use((request, response) => siteOf(request).notFound(request, response, "There is no such page."));
	app.use(errorPage(siteOf, log));
	return {
		app,
		close: () => {
			everybody.streams.close();
			operator.streams.close();
			signIn?.close();
		},
	};
}
