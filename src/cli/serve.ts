import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { availableParallelism, totalmem } from "node:os";
import { whoAmI } from "@huggingface/hub";
import { systemClock } from "../clock.ts";
import { createCommentAnswers } from "../commands/comment-answers.ts";
import { hubForum } from "../commands/hub-forum.ts";
import { hubSubject } from "../commands/hub-subject.ts";
import { joinAnswers } from "../commands/join-answers.ts";
import { HUB_WORDS } from "../commands/replies/reply-context.ts";
import { loadConfiguration } from "../config/load.ts";
import type { Configuration, ConfigurationInput } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import type { Database } from "../db/database.ts";
import { DirectoryLockedError } from "../db/directory-lock.ts";
import { openDatabase } from "../db/open-database.ts";
import { conditionalFetch } from "../hub/conditional-fetch.ts";
import { listHeads } from "../hub/list-heads.ts";
import { readOwnerWishes } from "../hub/read-owner-wishes.ts";
import { createPlanner } from "../jobs/plan-for-request.ts";
import type { SketchStore } from "../jobs/ports.ts";
import { createLog, type Log } from "../log.ts";
import { createPublishPorts } from "../publish/publish-ports.ts";
import { createSketchStore } from "../publish/sketch-store.ts";
import { createEngine, type Engine } from "../queue/engine.ts";
import { createVerifyPorts } from "../verify/verify-ports.ts";
import { createApp, type WebApp } from "../web/create-app.ts";
import { databaseData } from "../web/database-data.ts";
import { createMetrics, type Metrics } from "../web/metrics.ts";
import { answerRecords, commentSettings } from "./comment-records.ts";
import { problemLine } from "./config-check.ts";
import { createRunner } from "./create-runner.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { publisherAccess, readAccess } from "./hub-access.ts";
import { issueForum, issueRepos } from "./issue-answers.ts";
import { configuredMachines, measuredRates } from "./machines.ts";
import { openProgress, type Progress } from "./progress-channel.ts";
import { programVersion } from "./project-paths.ts";
import { keepLookingOverIssues, keepPolling, keepWebhook } from "./stay-reachable.ts";
import type { Terminal } from "./terminal.ts";
import { timedPorts } from "./timed-ports.ts";

export type ServeOptions = {
	readonly configurationPath: string | null;
	readonly port: number | null;
	readonly host: string | null;
	readonly json: boolean;
};

const HUB_CHECK_SECONDS = 30;

type Settings = {
	readonly configuration: Configuration;
	readonly secrets: Secrets;
	readonly publisherToken: string;
};

/** The data set repo that keeps sketches, where one is configured. */
function sketchStoreOf({ configuration, secrets, publisherToken }: Settings): SketchStore | null {
	const { repo, visibility } = configuration.sketches;
	if (repo === null) return null;
	const writer = { ...publisherAccess(configuration, secrets), accessToken: publisherToken };
	return createSketchStore({ writer, reader: readAccess(configuration, secrets), repo, visibility });
}

/** The engine with everything it reaches outside through. */
function buildEngine(settings: Settings, database: Database, progress: Progress, metrics: Metrics, log: Log): Engine {
	const { configuration, secrets, publisherToken } = settings;
	const publisher = { ...publisherAccess(configuration, secrets), accessToken: publisherToken };
	const reader = readAccess(configuration, secrets);
	const sweeper = { ...reader, fetch: conditionalFetch(reader.fetch ?? fetch) };
	const { publicUrl } = configuration.server;
	const runner = createRunner(configuration, secrets, progress.channel, log);
	const issues = issueRepos(configuration, secrets);
	let botUserId: string | null = null;
	return createEngine({
		database,
		configuration,
		runner,
		planner: async () => {
			const machines = await configuredMachines(configuration, reader);
			return machines === null ? null : createPlanner(configuration, machines, await measuredRates(database.handle));
		},
		clock: systemClock,
		log,
		ports: (requests) =>
			timedPorts(
				{
					...createVerifyPorts({
						reader,
						sourceLimits: { maximumWeightBytes: 4 * configuration.watch.maxParameters },
						childLimits: {
							milliseconds: 30 * 60_000,
							memoryBytes: Math.floor(totalmem() * 0.8),
							threads: availableParallelism(),
						},
					}),
					...createPublishPorts({
						publisher,
						reader,
						discussions: publisher,
						namespace: configuration.hub.namespace,
						publicUrl,
						mention: configuration.hub.mention,
					}),
					sketchStore: sketchStoreOf(settings),
					listHeads: (of) => listHeads({ ...sweeper, of }),
					readWishes: (of) => readOwnerWishes({ ...reader, ...of }),
					...joinAnswers(
						createCommentAnswers({
							forum: hubForum({
								hub: publisher,
								botUserId: async () => {
									// An account's id never changes; asking once is enough.
									botUserId ??= (await whoAmI(publisher)).id;
									return botUserId;
								},
							}),
							subjectOf: hubSubject,
							context: {
								...HUB_WORDS,
								hubUrl: configuration.hub.url,
								siteUrl: publicUrl,
								botName: configuration.hub.mention,
							},
							...commentSettings(configuration),
							...answerRecords({ database, clock: systemClock, log }),
							...requests,
							log,
						}),
						issues === null
							? null
							: createCommentAnswers({
									...issueForum(configuration, issues, reader),
									...commentSettings(configuration, "github"),
									...answerRecords({ database, clock: systemClock, log }),
									...requests,
									log,
								}),
					),
				},
				metrics,
				systemClock,
			),
	});
}

function buildSite(
	settings: Settings,
	database: Database,
	engine: Engine,
	progress: Progress,
	metrics: Metrics,
	log: Log,
): WebApp {
	const { configuration, secrets } = settings;
	const hub = readAccess(configuration, secrets);
	return createApp({
		data: databaseData({ database, clock: systemClock, storeDelivery: (delivery) => engine.storeDelivery(delivery) }),
		webhookSecrets: [secrets.webhookSecret, secrets.previousWebhookSecret].filter((secret) => secret !== null),
		progress: progress.door,
		gitHubWebhookSecrets: [secrets.gitHubWebhookSecret, secrets.previousGitHubWebhookSecret].filter(
			(secret) => secret !== null,
		),
		maxBodyBytes: configuration.server.maxBodyBytes,
		hubUrl: configuration.hub.url,
		botName: configuration.hub.mention,
		version: programVersion(),
		checks: [
			{ name: "database", cacheSeconds: 1, check: () => database.check() },
			{
				name: "queue",
				cacheSeconds: 0,
				check: async () => {
					if (!engine.isRunning()) throw new Error("The queue is not being worked on.");
				},
			},
			{
				name: "hub",
				cacheSeconds: HUB_CHECK_SECONDS,
				check: async () => {
					const response = await fetch(`${hub.hubUrl}/api/models?limit=1`, { signal: AbortSignal.timeout(4000) });
					await response.body?.cancel();
					if (response.status >= 500) throw new Error(`The Hub answers ${response.status}.`);
				},
			},
		],
		metrics,
		clock: systemClock,
		log,
	});
}

async function listen(server: Server, host: string, port: number): Promise<string> {
	server.listen(port, host);
	// "error" rejects the wait.
	await once(server, "listening");
	const address = server.address();
	if (address === null || typeof address === "string") return `http://${host}:${port}`;
	const name = address.family === "IPv6" ? `[${address.address}]` : address.address;
	return `http://${name}:${address.port}`;
}

/** Resolves at the first SIGTERM or SIGINT; the second one ends the process without waiting for anything. */
function untilSignal(log: Log): { readonly first: Promise<string>; readonly release: () => void } {
	const { promise, resolve } = Promise.withResolvers<string>();
	let received = 0;
	const names = ["SIGTERM", "SIGINT"] as const;
	const handlers = names.map((name) => {
		const handler = (): void => {
			received++;
			if (received === 1) resolve(name);
			else {
				log.warn("Stopping at once", { signal: name });
				process.exit(EXIT_CODES.interrupted.code);
			}
		};
		process.on(name, handler);
		return { name, handler };
	});
	return {
		first: promise,
		release: () => {
			for (const { name, handler } of handlers) process.off(name, handler);
		},
	};
}

/** `yaqa-bot serve`: webhooks, queue and pages until a signal comes. */
export async function serve(options: ServeOptions, terminal: Terminal): Promise<ExitCode> {
	const overrides: ConfigurationInput = {
		server: {
			...(options.port === null ? {} : { port: options.port }),
			...(options.host === null ? {} : { host: options.host }),
		},
	};
	const loaded = loadConfiguration({
		overrides,
		...(options.configurationPath === null ? {} : { path: options.configurationPath }),
	});
	const refuse = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${message}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	if (!loaded.ok) {
		return refuse(loaded.problems.map(problemLine).join("\n"), EXIT_CODES.usage.code);
	}
	const { configuration, secrets } = loaded;
	if (secrets.publisherToken === null) {
		return refuse(
			"Set YAQA_BOT_HUB_TOKEN (or HF_TOKEN) to a token of the bot's account that may write to its namespace. `yaqa-bot doctor` checks it.",
			EXIT_CODES.usage.code,
		);
	}
	const settings: Settings = { configuration, secrets, publisherToken: secrets.publisherToken };
	const log = createLog({
		level: configuration.log.level,
		write: (line) => terminal.err(`${line}\n`),
		now: () => systemClock.now(),
	});
	const signals = untilSignal(log);
	let database: Database;
	try {
		database = await openDatabase({
			dataDirectory: configuration.database.dataDirectory,
			databaseUrl: secrets.databaseUrl,
			poolSize: configuration.database.poolSize,
			clock: systemClock,
			log,
		});
	} catch (error) {
		signals.release();
		const message = error instanceof Error ? error.message : String(error);
		return refuse(
			error instanceof DirectoryLockedError ? message : `The database cannot be opened: ${message}`,
			EXIT_CODES.failed.code,
		);
	}
	const metrics = createMetrics();
	const progress = await openProgress(configuration, database);
	const engine = buildEngine(settings, database, progress, metrics, log);
	const site = buildSite(settings, database, engine, progress, metrics, log);
	const server = createServer(site.app);
	// A sender that dawdles must not hold a connection; event streams are answers and have no such limit.
	server.requestTimeout = 30_000;
	server.headersTimeout = 15_000;
	const registering = new AbortController();
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
		if (options.json) terminal.out(`${JSON.stringify({ ok: true, address: shown })}\n`);
		const reach = { configuration, secrets, log, signal: registering.signal };
		if (secrets.webhookSecret === null || configuration.server.publicUrl === null) {
			void keepPolling({ ...reach, storeDelivery: (delivery) => engine.storeDelivery(delivery), clock: systemClock });
		}
		void keepLookingOverIssues({
			...reach,
			storeDelivery: (delivery) => engine.storeDelivery(delivery),
			clock: systemClock,
		});
		if (secrets.webhookSecret === null) {
			log.warn("No webhook secret is set: every delivery is refused, only the sweep finds pushes", {
				remedy: "Set YAQA_BOT_WEBHOOK_SECRET.",
			});
		} else if (configuration.server.publicUrl === null) {
			log.warn("server.publicUrl is not set: the webhook is not registered", {
				remedy: `Make one in the Hub's settings, to ADDRESS/webhooks/hub with the secret, or set server.publicUrl.`,
			});
		} else {
			void keepWebhook({ ...reach, publicUrl: configuration.server.publicUrl });
		}
		const signal = await signals.first;
		log.info("Stopping", { signal, deadlineSeconds: configuration.server.shutdownSeconds });
		return EXIT_CODES.ok.code;
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		const taken = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
		return refuse(
			`The bot cannot start: ${message}${taken ? " Choose another port with --port or server.port." : ""}`,
			EXIT_CODES.failed.code,
		);
	} finally {
		registering.abort();
		const deadline = setTimeout(() => {
			log.warn("The deadline for stopping has passed");
			process.exit(EXIT_CODES.failed.code);
		}, configuration.server.shutdownSeconds * 1000);
		deadline.unref();
		site.close();
		server.close();
		server.closeIdleConnections();
		await engine.stop();
		server.closeAllConnections();
		await database.close();
		clearTimeout(deadline);
		signals.release();
		log.info("Stopped");
	}
}
