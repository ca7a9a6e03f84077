import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import express, { type NextFunction, type Request, type RequestHandler, type Response } from "express";
import { z } from "zod";
import { type Clock, systemClock } from "../clock.ts";
import { type Log, silentLog } from "../log.ts";
import { createAccounts, type LocalHubOrganization, type LocalHubUser } from "./accounts.ts";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";
import { openBlobStore } from "./blob-store.ts";
import { openBucketStore } from "./bucket-store.ts";
import { openCollectionStore } from "./collection-store.ts";
import { createDiscussionStore } from "./discussion-store.ts";
import { createFaults, type FaultPlan, type Faults } from "./faults.ts";
import type { HubContext } from "./hub-context.ts";
import { HubError } from "./hub-error.ts";
import { newId } from "./identifiers.ts";
import { type JobOptions, openJobStore } from "./job-store.ts";
import { escapeHtml } from "./markdown.ts";
import { authorizeRoutes } from "./oauth/authorize-routes.ts";
import { type LocalHubOAuthApp, oauthApps } from "./oauth/oauth-apps.ts";
import { createOAuthGrants } from "./oauth/oauth-grants.ts";
import { oauthRoutes } from "./oauth/oauth-routes.ts";
import { pageLayout } from "./pages/page-layout.ts";
import { pageRoutes } from "./pages/page-routes.ts";
import { openReadMarks } from "./read-marks.ts";
import { reconcilePullRequests } from "./reconcile-pull-requests.ts";
import { createFactsReader } from "./repo-facts.ts";
import { openRepoStore } from "./repo-store.ts";
import { accountRoutes } from "./routes/account-routes.ts";
import { adminRoutes } from "./routes/admin-routes.ts";
import { bucketRoutes } from "./routes/bucket-routes.ts";
import { collectionRoutes } from "./routes/collection-routes.ts";
import { compareRoutes } from "./routes/compare-routes.ts";
import { discussionRoutes } from "./routes/discussion-routes.ts";
import { duplicateRoutes } from "./routes/duplicate-routes.ts";
import { gateRoutes } from "./routes/gate-routes.ts";
import { gitRoutes } from "./routes/git-routes.ts";
import { jobRoutes } from "./routes/job-routes.ts";
import { lfsRoutes } from "./routes/lfs-routes.ts";
import { likeRoutes } from "./routes/like-routes.ts";
import { notificationRoutes } from "./routes/notification-routes.ts";
import { refRoutes } from "./routes/ref-routes.ts";
import { repoAdminRoutes } from "./routes/repo-admin-routes.ts";
import { repoReadRoutes } from "./routes/repo-read-routes.ts";
import { resolveRoutes } from "./routes/resolve-routes.ts";
import { scheduledJobRoutes } from "./routes/scheduled-job-routes.ts";
import { spaceRoutes } from "./routes/space-routes.ts";
import { storageRoutes } from "./routes/storage-routes.ts";
import { tagRoutes } from "./routes/tag-routes.ts";
import { uploadRoutes } from "./routes/upload-routes.ts";
import { webhookRoutes } from "./routes/webhook-routes.ts";
import { xetRoutes } from "./routes/xet-routes.ts";
import { openScheduledJobStore } from "./scheduled-job-store.ts";
import { createUrlSigner } from "./url-signer.ts";
import { createWebhookDispatcher } from "./webhook-delivery.ts";
import { openWebhookStore } from "./webhook-store.ts";

export type LocalHubOptions = {
	/** Everything is kept here; one running Hub at a time. */
	readonly dataDirectory: string;
	readonly port?: number;
	readonly host?: string;
	/** What others reach this Hub by, when it is not `http://host:port`. */
	readonly publicUrl?: string;
	readonly users: readonly LocalHubUser[];
	readonly organizations?: readonly LocalHubOrganization[];
	/** Programs that people can sign in to with their account here. */
	readonly oauthApps?: readonly LocalHubOAuthApp[];
	readonly log?: Log;
	readonly clock?: Clock;
	/** What goes wrong from the start. */
	readonly initialFaults?: FaultPlan;
	/** Opens the fault switches; a random one by default. */
	readonly adminToken?: string;
	readonly webhookRetryMilliseconds?: readonly number[];
	readonly webhookTimeoutMilliseconds?: number;
	readonly webhookSuspendAfterFailures?: number;
	/** LFS objects above it go in parts. */
	readonly multipartThresholdBytes?: number;
	readonly multipartChunkBytes?: number;
	/** Lets people who may write run jobs, as processes of this machine with its rights. Absent: this Hub runs none. */
	readonly jobs?: JobOptions;
	/** Large files come from another host, as the Hub's do: clients go there without their token, or are refused. */
	readonly cdn?: boolean;
	/** Names of one word, as the first models had them, and the full names that they lead to. */
	readonly legacyNames?: Readonly<Record<string, string>>;
	/** Called once for each answered request. */
	readonly onRequest?: (request: { method: string; path: string; status: number }) => void;
};

export type LocalHub = {
	readonly url: string;
	readonly adminToken: string;
	readonly faults: Faults;
	/** Takes back what a person let apps do. */
	readonly revokeApps: (userName: string) => void;
	/** Resolves when no webhook delivery is under way or waiting for a retry. */
	webhooksIdle(): Promise<void>;
	close(): Promise<void>;
};

const instanceSchema = z.object({ id: z.string(), key: z.string() });
const MEBIBYTE = 1024 * 1024;

function isRunning(pid: number): boolean {
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return error instanceof Error && "code" in error && error.code === "EPERM";
	}
}

/** Two processes writing one data folder would overwrite each other's refs, so the second is refused. */
async function lockDirectory(directory: string): Promise<() => Promise<void>> {
	const path = join(directory, "lock");
	for (let attempt = 0; attempt < 2; attempt++) {
		try {
			const handle = await open(path, "wx", 0o600);
			await handle.writeFile(String(process.pid));
			await handle.close();
			return () => rm(path, { force: true });
		} catch (error) {
			if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
			const pid = Number(await readFile(path, "utf8").catch(() => "0"));
			if (pid > 0 && pid !== process.pid && isRunning(pid))
				throw new Error(`Another local Hub (process ${pid}) has ${directory} open. Stop it, or choose another folder.`);
			if (pid === process.pid && heldHere.has(directory))
				throw new Error(`This process has ${directory} open already.`);
			await rm(path, { force: true });
		}
	}
	throw new Error(`Could not lock ${directory}: another local Hub starts there.`);
}
const heldHere = new Set<string>();

/**
 * A Hub that runs on this machine and answers like the real one in what the stock clients do with it. Long, since this is
 * where its parts are put together, in the order in which they need each other.
 */
export async function startLocalHub(options: LocalHubOptions): Promise<LocalHub> {
	const { dataDirectory } = options;
	const log = options.log ?? silentLog;
	const clock = options.clock ?? systemClock;
	const host = options.host ?? "127.0.0.1";
	const adminToken = options.adminToken ?? randomBytes(24).toString("base64url");
	const accounts = createAccounts(options.users, options.organizations);
	const apps = oauthApps(options.oauthApps ?? []);
	const oauthGrants = createOAuthGrants(clock);

	await mkdir(dataDirectory, { recursive: true, mode: 0o700 });
	const unlock = await lockDirectory(dataDirectory);
	heldHere.add(dataDirectory);
	const release = async (): Promise<void> => {
		heldHere.delete(dataDirectory);
		await unlock();
	};

	try {
		const instanceFile = join(dataDirectory, "instance.json");
		let instance = await readJson(instanceFile, instanceSchema);
		if (instance === null) {
			instance = { id: randomUUID(), key: randomBytes(32).toString("base64") };
			await writeJsonAtomically(instanceFile, instance);
		}
		const blobs = await openBlobStore(dataDirectory);
		const repos = await openRepoStore(dataDirectory, clock);
		const discussions = createDiscussionStore();
		for (const repo of repos.all()) await discussions.load(repo);
		await reconcilePullRequests(repos, discussions, clock);
		const collections = await openCollectionStore(dataDirectory);
		const readMarks = await openReadMarks(dataDirectory);
		const webhooks = await openWebhookStore(dataDirectory);
		const faults = createFaults(options.initialFaults);
		const jobs = await openJobStore({ dataDirectory, clock, log, faults, options: options.jobs ?? null });
		const buckets = await openBucketStore(dataDirectory, clock);
		const scheduledJobs = await openScheduledJobStore({ dataDirectory, clock, log, jobs });
		const dispatcher = createWebhookDispatcher({
			store: webhooks,
			clock,
			log,
			faults,
			ownerType: (name) =>
				accounts.user(name) !== null ? "user" : accounts.organization(name) !== null ? "org" : null,
			startJob: async (spec, { webhook, owner, environment }) => {
				const initiator = { type: "webhook", id: webhook } as const;
				await jobs.run(spec, { namespace: owner, user: owner, initiator, environment });
			},
			options: {
				retryDelaysMilliseconds: options.webhookRetryMilliseconds ?? [1000, 5000, 30_000, 120_000, 600_000],
				timeoutMilliseconds: options.webhookTimeoutMilliseconds ?? 30_000,
				suspendAfterFailures: options.webhookSuspendAfterFailures ?? 20,
			},
		});

		let origin = "";
		const context: HubContext = {
			origin: () => origin,
			instanceId: instance.id,
			clock,
			log,
			accounts,
			oauthApps: apps,
			oauthGrants,
			blobs,
			repos,
			discussions,
			collections,
			readMarks,
			webhooks,
			dispatcher,
			jobs,
			scheduledJobs,
			buckets,
			faults,
			facts: createFactsReader(blobs),
			signer: createUrlSigner(Buffer.from(instance.key, "base64"), () => clock.now().getTime()),
			multipartThreshold: options.multipartThresholdBytes ?? 64 * MEBIBYTE,
			multipartChunk: options.multipartChunkBytes ?? 16 * MEBIBYTE,
			cdnOrigin: () => (options.cdn === true ? otherLoopback(origin) : null),
		};

		const app = express();
		app.disable("x-powered-by");
		app.set("etag", false);
		app.set("query parser", "simple");
		app.use((request: Request, response: Response, next: NextFunction) => {
			response.set("X-Request-Id", newId());
			response.on("close", () => {
				options.onRequest?.({ method: request.method, path: request.originalUrl, status: response.statusCode });
				log.debug("request", { method: request.method, path: request.path, status: response.statusCode });
			});
			next();
		});
		app.use(adminRoutes({ adminToken, faults }));
		app.use(crossOriginReads);
		app.use(legacyNames(options.legacyNames ?? {}));
		app.use((request, response, next) => faults.middleware(request, response, next));
		for (const routes of [
			accountRoutes,
			authorizeRoutes,
			oauthRoutes,
			likeRoutes,
			tagRoutes,
			storageRoutes,
			spaceRoutes,
			duplicateRoutes,
			lfsRoutes,
			compareRoutes,
			repoAdminRoutes,
			webhookRoutes,
			notificationRoutes,
			jobRoutes,
			scheduledJobRoutes,
			collectionRoutes,
			bucketRoutes,
			uploadRoutes,
			gitRoutes,
			xetRoutes,
			refRoutes,
			discussionRoutes,
			gateRoutes,
			repoReadRoutes,
			resolveRoutes,
			pageRoutes,
		])
			app.use(routes(context));
		app.use(() => {
			throw new HubError(404, "Not found");
		});
		app.use((error: unknown, request: Request, response: Response, _next: NextFunction) => {
			// an upload that is refused half-way: read on, or the client sees a reset instead of the reason
			request.resume();
			if (response.headersSent || request.socket.destroyed) {
				// half an answer is out, or nobody is left to answer
				response.destroy();
				return;
			}
			const known = error instanceof HubError ? error : bodyParserError(error);
			if (known === null) log.error("A request failed", { error, method: request.method, path: request.path });
			const answer = known ?? new HubError(500, "Internal error of the local Hub");
			response.status(answer.status).set(answer.headers);
			if (answer.code !== null) response.set("X-Error-Code", answer.code);
			response.set("X-Error-Message", answer.message.replaceAll(/[^\x20-\x7e]/g, " ").slice(0, 500));
			const wantsPage = request.method === "GET" && request.accepts(["json", "html"]) === "html";
			if (wantsPage && !request.path.startsWith("/api/"))
				response
					.set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
					.type("html")
					.send(pageLayout(String(answer.status), `<h1>${answer.status}</h1><p>${escapeHtml(answer.message)}</p>`));
			else response.type("application/json").send(JSON.stringify({ ...answer.body, error: answer.message }));
		});

		const server = createServer(app);
		// uploads of many gigabytes take as long as they take
		server.requestTimeout = 0;
		// longer than clients keep idle connections, or one is closed under a request that is just being sent
		server.keepAliveTimeout = 75_000;
		await new Promise<void>((resolve, reject) => {
			server.once("error", reject);
			server.listen(options.port ?? 0, host, resolve);
		});
		const address: AddressInfo | string | null = server.address();
		const port = typeof address === "object" && address !== null ? address.port : (options.port ?? 0);
		const shownHost = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host.includes(":") ? `[${host}]` : host;
		origin = (options.publicUrl ?? `http://${shownHost}:${port}`).replace(/\/$/, "");
		dispatcher.resume();

		return {
			url: origin,
			adminToken,
			faults,
			revokeApps: oauthGrants.revoke,
			webhooksIdle: () => dispatcher.idle(),
			async close() {
				await scheduledJobs.close();
				await jobs.close();
				await dispatcher.close();
				const closed = new Promise<void>((resolve) => server.close(() => resolve()));
				server.closeAllConnections();
				await closed;
				await release();
			},
		};
	} catch (error) {
		await release();
		throw error;
	}
}

/** The same Hub under another name, so that a client sees another host; `null` where it has none but its own. */
function otherLoopback(origin: string): string | null {
	const url = new URL(origin);
	if (url.hostname !== "127.0.0.1" && url.hostname !== "localhost") return null;
	url.hostname = url.hostname === "localhost" ? "127.0.0.1" : "localhost";
	return url.origin;
}

const NAMED_BY_ONE_WORD =
	/^\/(api\/models\/)?([A-Za-z0-9._-]+)((?:\/(?:resolve|raw|revision|tree|commits|refs|paths-info|treesize|scan)(?:\/.*)?)?)$/;

/** Sends who asks for `gpt2` on to the name with an owner, as the Hub does. */
function legacyNames(names: Readonly<Record<string, string>>): RequestHandler {
	return (request, response, next) => {
		const url = new URL(request.originalUrl, "http://hub.invalid");
		const [, api = "", name = "", rest = ""] = NAMED_BY_ONE_WORD.exec(url.pathname) ?? [];
		const full = Object.hasOwn(names, name) ? names[name] : undefined;
		if (full === undefined) next();
		else response.redirect(307, `/${api}${full}${rest}${url.search}`);
	};
}

/**
 * Lets pages of other origins read what is public, as transformers.js in a browser does. No more: a token cannot be
 * sent from there, so that a page which knows the demo's tokens can do nothing with them.
 */
function crossOriginReads(request: Request, response: Response, next: NextFunction): void {
	response.set("Access-Control-Allow-Origin", "*");
	response.set(
		"Access-Control-Expose-Headers",
		"Accept-Ranges, Content-Length, Content-Range, ETag, Link, X-Error-Code, X-Error-Message, X-Linked-ETag, X-Linked-Size, X-Repo-Commit",
	);
	if (request.method !== "OPTIONS") {
		next();
		return;
	}
	response.set({ "Access-Control-Allow-Methods": "GET, HEAD", "Access-Control-Allow-Headers": "Range" });
	response.status(204).end();
}

/** body-parser and the router throw errors that carry a status below 500 for what the client did wrong. */
function bodyParserError(error: unknown): HubError | null {
	if (!(error instanceof Error) || !("status" in error) || typeof error.status !== "number") return null;
	return error.status >= 400 && error.status < 500 ? new HubError(error.status, error.message) : null;
}
