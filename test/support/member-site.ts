import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../src/clock.ts";
import { ConfigurationFile } from "../../src/config/schema.ts";
import type { Database } from "../../src/db/database.ts";
import type { JobsContext, Work } from "../../src/jobs/context.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { createLog } from "../../src/log.ts";
import { jobControlOf, operatorDataOf, signInOf } from "../../src/server/member-pages.ts";
import { createApp } from "../../src/web/create-app.ts";
import { databaseData } from "../../src/web/database-data.ts";
import { createMetrics } from "../../src/web/metrics.ts";
import { aboutOf } from "../../src/web/views/about-page.ts";
import { NO_SECRETS } from "./no-secrets.ts";
import { CLIENT_ID, CLIENT_SECRET, oauthApp } from "./oauth-person.ts";
import { scriptedConfiguration, scriptedRunner, worldFolder } from "./scripted-bot.ts";
import { type ScriptedWorld, scriptedPorts, scriptedWorld } from "./scripted-ports.ts";

export type MemberSite = {
	readonly url: string;
	readonly hub: LocalHub;
	readonly world: ScriptedWorld;
	/** What the queue was told of. */
	readonly woken: readonly Work[];
	readonly logLines: readonly string[];
	/** Moves the site's clock on. */
	readonly advance: (seconds: number) => void;
	close(): Promise<void>;
};

/** `alice` is a member of acme, `carol` runs the bot, `bob` is somebody else; of `other` only dave is a member. */
const USERS = [
	{ name: "alice", token: "hf_alice_token", fullname: "Alice", orgs: [{ name: "acme", role: "write" }] },
	{ name: "bob", token: "hf_bob_token" },
	{ name: "carol", token: "hf_carol_token" },
	{ name: "dave", token: "hf_dave_token", orgs: [{ name: "other", role: "admin" }] },
] as const;

/** The pages over a real database, with a local Hub that people sign in with. No engine runs: what is asked stays asked. */
export async function memberSite(
	database: Database,
	options: { readonly publicUrl?: (address: string) => string } = {},
): Promise<MemberSite> {
	const folder = await mkdtemp(join(tmpdir(), "yaqa-members-"));
	const server = createServer();
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	if (address === null || typeof address === "string") throw new Error("no address");
	const url = `http://127.0.0.1:${address.port}`;
	const publicUrl = options.publicUrl?.(url) ?? url;
	const hub = await startLocalHub({
		dataDirectory: join(folder, "hub"),
		users: USERS,
		oauthApps: [oauthApp(`${publicUrl}/auth/callback`)],
	});
	let ahead = 0;
	const clock: Clock = { now: () => new Date(Date.now() + ahead) };
	const logLines: string[] = [];
	const log = createLog({ level: "debug", write: (line) => logLines.push(line), now: () => new Date() });
	const configuration = scriptedConfiguration(folder, {
		server: { publicUrl },
		hub: { url: hub.url },
		signIn: { operators: ["carol"] },
	});
	const settings = {
		configuration: { ...configuration, signIn: { ...configuration.signIn, clientId: CLIENT_ID } },
		secrets: { ...NO_SECRETS, oauthClientSecret: CLIENT_SECRET },
		publisherToken: "hf_nobody_here",
	};
	const world = scriptedWorld(worldFolder(folder));
	const woken: Work[] = [];
	const context: JobsContext = {
		database,
		clock,
		log,
		configuration,
		ports: scriptedPorts(world),
		runner: scriptedRunner(configuration),
		newId: randomUUID,
		owner: "a test",
		wake: async (work) => void woken.push(work),
	};
	const metrics = createMetrics();
	const app = createApp({
		data: databaseData({ database, clock, audience: "everybody" }),
		operatorData: databaseData({ database, clock, audience: "operator" }),
		signIn: signInOf(settings, database, clock),
		jobControl: jobControlOf(settings, context),
		operatorPage: operatorDataOf(settings, context, metrics),
		storeDelivery: () => Promise.reject(new Error("This site takes no deliveries.")),
		webhookSecrets: [],
		gitHubWebhookSecrets: [],
		progress: { isAllowed: () => false, store: async () => false },
		maxBodyBytes: 4096,
		hubUrl: hub.url,
		botName: "yaqa-bot",
		about: aboutOf(ConfigurationFile.parse({}), false),
		version: "0.1.0",
		checks: [],
		metrics,
		clock,
		log,
		pollMilliseconds: 20,
	});
	server.on("request", app.app);
	return {
		url,
		hub,
		world,
		woken,
		logLines,
		advance: (seconds) => {
			ahead += seconds * 1000;
		},
		async close() {
			app.close();
			server.closeAllConnections();
			server.close();
			await hub.close();
			await rm(folder, { recursive: true, force: true });
		},
	};
}
