import type { ErrorRequestHandler, Express, Request, Response } from "express";
import express from "express";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import { COMMANDS } from "../commands/command-table.ts";
import { GitHubWebhookBody } from "../github/webhook-body.ts";
import { HubWebhookBody } from "../hub/webhook-body.ts";
import type { Log } from "../log.ts";
import { repoName } from "../protocol/job-spec.ts";
import { newestCommitOf } from "../publish/newest-commit.ts";
import { summarizeVariant } from "../publish/variant-summary.ts";
import type { DeliveryRecord } from "../records/delivery.ts";
import type { JobRecord } from "../records/job.ts";
import { siteAssets } from "./assets.ts";
import { VARIANT_SORTS, type VariantQuery, type WebData } from "./data.ts";
import { gitHubWebhook } from "./github-webhook.ts";
import { createHealth, type HealthCheck } from "./health.ts";
import { hubWebhook } from "./hub-webhook.ts";
import { foldEvents, type JobProgress, NO_PROGRESS } from "./job-progress.ts";
import { createJobStreams } from "./job-stream.ts";
import type { Metrics } from "./metrics.ts";
import { type ProgressIngestOptions, progressIngest } from "./progress-ingest.ts";
import { cataloguePage } from "./views/catalogue-page.ts";
import { type DeliverySummary, deliveriesPage } from "./views/deliveries-page.ts";
import { helpPage } from "./views/help-page.ts";
import { type JobView, jobPage } from "./views/job-page.ts";
import { jobsPage } from "./views/jobs-page.ts";
import type { PageContext } from "./views/layout.ts";
import { messagePage } from "./views/message-page.ts";
import { sourcePage } from "./views/source-page.ts";

export type WebOptions = {
	readonly data: WebData;
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
	readonly checks: readonly HealthCheck[];
	readonly metrics: Metrics;
	readonly clock: Clock;
	readonly log: Log;
	readonly maximumStreams?: number;
	readonly pollMilliseconds?: number;
	readonly keepAliveMilliseconds?: number;
};

export type WebApp = {
	readonly app: Express;
	/** Ends the event streams; call before closing the server. */
	readonly close: () => void;
};

const PAGE_ROWS = 25;
const SECURITY_HEADERS = {
	"Content-Security-Policy":
		"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
	"X-Content-Type-Options": "nosniff",
	"Referrer-Policy": "strict-origin-when-cross-origin",
	"X-Frame-Options": "DENY",
	"Cross-Origin-Opener-Policy": "same-origin",
	"Permissions-Policy": "camera=(), geolocation=(), microphone=()",
};

/** Addresses are written and shared by people: what does not parse counts as not given. */
const CatalogueParameters = z.object({
	q: z
		.string()
		.trim()
		.min(1)
		.transform((text) => text.slice(0, 200))
		.nullable()
		.catch(null),
	container: z.enum(["gguf", "onnx", "compressed-tensors", "gptq"]).nullable().catch(null),
	bits: z.coerce.number().int().min(1).max(16).nullable().catch(null),
	sort: z.enum(VARIANT_SORTS).catch("newest"),
	cursor: z.string().min(1).max(1000).nullable().catch(null),
});
const CursorParameter = z.object({ cursor: z.string().min(1).max(1000).nullable().catch(null) });

/** What it is about, as far as its body tells. */
function subjectOf(delivery: DeliveryRecord): Pick<DeliverySummary, "event" | "repo"> {
	if (delivery.source === "github") {
		const { data } = GitHubWebhookBody.safeParse(delivery.body);
		if (data === undefined) return { event: "github", repo: null };
		const { action, repository } = data.payload;
		return { event: `github ${data.event} ${action ?? ""}`.trim(), repo: repository?.full_name ?? null };
	}
	const { data } = HubWebhookBody.safeParse(delivery.body);
	if (data === undefined) return { event: delivery.source, repo: null };
	return { event: `${data.event.scope} ${data.event.action}`, repo: data.repo.name };
}

function summarizeDelivery(delivery: DeliveryRecord): DeliverySummary {
	return {
		id: delivery.id,
		receivedAt: delivery.receivedAt.toISOString(),
		outcome: delivery.outcome,
		detail: delivery.detail,
		...subjectOf(delivery),
	};
}

function jobJson(job: JobRecord): unknown {
	const { runnerHandle: _kept, ...shown } = job;
	return shown;
}

/** The HTTP side: webhook ingest, pages with their JSON twins, event streams, health and metrics. */
export function createApp(options: WebOptions): WebApp {
	const { data, clock, log, hubUrl } = options;
	const app = express();
	app.disable("x-powered-by");
	app.set("query parser", "simple");
	const site = siteAssets();
	const context = (): PageContext => ({
		botName: options.botName,
		hubUrl,
		version: options.version,
		now: clock.now(),
		assets: site.assets,
	});
	const streams = createJobStreams({
		data,
		log,
		maximumClients: options.maximumStreams ?? 200,
		pollMilliseconds: options.pollMilliseconds ?? 500,
		keepAliveMilliseconds: options.keepAliveMilliseconds ?? 15_000,
		view: jobView,
	});
	const { metrics } = options;
	const health = createHealth(options.checks, clock);

	async function jobView(job: JobRecord, progress: JobProgress): Promise<JobView> {
		const variants = await data.listVariantsOfJob(job.id);
		return { job, progress, variants: variants.map((variant) => summarizeVariant(variant, hubUrl)), now: clock.now() };
	}

	async function progressOf(jobId: string): Promise<JobProgress> {
		let progress = NO_PROGRESS;
		for (;;) {
			const rows = await data.listJobEvents(jobId, progress.lastSequence, 1000);
			progress = foldEvents(progress, rows);
			if (rows.length < 1000) return progress;
		}
	}

	/** The page, or its JSON twin at the same address. */
	function reply(request: Request, response: Response, twin: unknown, page: () => string): void {
		response.vary("Accept").set("Cache-Control", "no-cache");
		if (request.accepts(["html", "json"]) === "json") response.json(twin);
		else response.type("html").send(page());
	}

	function notFound(request: Request, response: Response, text: string): void {
		response.status(404);
		reply(request, response, { error: text }, () => messagePage(context(), { title: "Not found", text }));
	}

	app.use((_request, response, next) => {
		response.set(SECURITY_HEADERS);
		next();
	});
	const ingest = {
		maxBodyBytes: options.maxBodyBytes,
		store: data.storeDelivery,
		clock,
		log,
		onOutcome: metrics.countIngest,
	};
	app.use(hubWebhook({ ...ingest, secrets: options.webhookSecrets }));
	app.use(gitHubWebhook({ ...ingest, secrets: options.gitHubWebhookSecrets }));
	app.use(progressIngest({ ...options.progress, maxBodyBytes: options.maxBodyBytes, log }));
	app.use(site.router);

	app.get("/healthz", (_request, response) => {
		response.set("Cache-Control", "no-store").json({ alive: true, version: options.version });
	});
	app.get("/readyz", async (_request, response) => {
		const report = await health();
		response
			.set("Cache-Control", "no-store")
			.status(report.ready ? 200 : 503)
			.json(report);
	});
	app.get("/metrics", async (_request, response) => {
		response
			.set("Content-Type", metrics.registry.contentType)
			.send(await metrics.scrape(await data.counts(), streams.clients()));
	});

	app.get("/", async (request, response) => {
		const parameters = CatalogueParameters.parse(request.query);
		const query: VariantQuery = {
			search: parameters.q,
			container: parameters.container,
			bits: parameters.bits,
			sort: parameters.sort,
			cursor: parameters.cursor,
			limit: PAGE_ROWS,
		};
		const page = await data.listPublishedVariants(query);
		const rows = page.items.map((variant) => summarizeVariant(variant, hubUrl));
		reply(request, response, { variants: rows, nextCursor: page.next }, () =>
			cataloguePage(context(), query, { items: rows, next: page.next }),
		);
	});

	app.get("/m/:owner/:name", async (request, response) => {
		const repo = repoName.safeParse(`${request.params.owner}/${request.params.name}`);
		if (!repo.success) {
			notFound(request, response, "There is no model of that name here.");
			return;
		}
		const [variants, jobs] = await Promise.all([
			data.listVariantsOfSource(repo.data),
			data.listJobsOfSource(repo.data, 20),
		]);
		if (variants.length === 0 && jobs.length === 0) {
			notFound(request, response, `This bot has made nothing of ${repo.data} yet.`);
			return;
		}
		const summaries = variants.map((variant) => summarizeVariant(variant, hubUrl));
		const newestSha = newestCommitOf(jobs, variants);
		reply(request, response, { repo: repo.data, newestSha, variants: summaries, jobs: jobs.map(jobJson) }, () =>
			sourcePage(context(), { repo: repo.data, newestSha, variants: summaries, jobs }),
		);
	});

	app.get("/jobs", async (request, response) => {
		const { cursor } = CursorParameter.parse(request.query);
		const page = await data.listJobs({ cursor, limit: PAGE_ROWS });
		reply(request, response, { jobs: page.items.map(jobJson), nextCursor: page.next }, () =>
			jobsPage(context(), page, cursor),
		);
	});

	async function findJob(id: string): Promise<JobRecord | null> {
		return z.uuid().safeParse(id).success ? await data.getJob(id) : null;
	}

	app.get("/jobs/:id", async (request, response) => {
		const job = await findJob(request.params.id);
		if (job === null) {
			notFound(request, response, "There is no job of that number here.");
			return;
		}
		const view = await jobView(job, await progressOf(job.id));
		reply(request, response, { job: jobJson(job), variants: view.variants, progress: view.progress }, () =>
			jobPage(context(), view),
		);
	});

	app.get("/jobs/:id/events", async (request, response) => {
		const job = await findJob(request.params.id);
		if (job === null) {
			response.status(404).json({ error: "There is no job of that number here." });
			return;
		}
		streams.handle(request, response, job);
	});

	app.get("/deliveries", async (request, response) => {
		const { cursor } = CursorParameter.parse(request.query);
		const page = await data.listDeliveries({ cursor, limit: PAGE_ROWS });
		const rows = page.items.map(summarizeDelivery);
		reply(request, response, { deliveries: rows, nextCursor: page.next }, () =>
			deliveriesPage(context(), { items: rows, next: page.next }, cursor),
		);
	});

	app.get("/help", (request, response) => {
		reply(request, response, { commands: COMMANDS }, () => helpPage(context()));
	});

	app.use((request, response) => notFound(request, response, "There is no such page."));

	const onError: ErrorRequestHandler = (error, request, response, next) => {
		if (response.headersSent) {
			next(error);
			return;
		}
		const status = error instanceof URIError ? 400 : 500;
		if (status === 500) log.error("A page could not be made", { path: request.path, error });
		response.status(status);
		const title = status === 400 ? "That address cannot be read" : "That did not work";
		const text =
			status === 400
				? "A part of the address is not one that this site made."
				: "The fault is on our side and was written to the log. Please try again.";
		reply(request, response, { error: text }, () => messagePage(context(), { title, text }));
	};
	app.use(onError);

	return { app, close: streams.close };
}
