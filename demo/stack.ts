import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { systemClock } from "../src/clock.ts";
import type { ConfigurationInput } from "../src/config/schema.ts";
import { listWebhooks } from "../src/hub/list-webhooks.ts";
import { type LocalHub, startLocalHub } from "../src/local-hub/start-local-hub.ts";
import { createLog } from "../src/log.ts";
import { endRuns } from "./end-runs.ts";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const venvPython = join(root, "gpu-runner", ".venv", "bin", "python");

/** People of the demo's Hub. The bot's read token is a second token of the same account. */
type People = {
	readonly owner: { readonly name: string; readonly token: string };
	readonly stranger: { readonly name: string; readonly token: string };
	readonly bot: { readonly name: string; readonly token: string; readonly readToken: string };
};

export type StackOptions = {
	/** Everything of the Hub, the bot and its runs is kept below. */
	readonly dataDirectory: string;
	/** 0: a free one. */
	readonly hubPort?: number;
	readonly botPort?: number;
	/** PostgreSQL instead of the embedded database. */
	readonly databaseUrl?: string | null;
	/** More variables for the bot: secrets of what it talks to besides the Hub. */
	readonly environment?: Readonly<Record<string, string>>;
	/** Laid over the demo's configuration. */
	readonly configuration?: ConfigurationInput;
	/** Waits before the second, third, … attempt of a webhook delivery. */
	readonly webhookRetryMilliseconds?: readonly number[];
};

export type Stack = {
	readonly hub: LocalHub;
	readonly people: People;
	readonly botUrl: string;
	readonly webhookSecret: string;
	readonly dataDirectory: string;
	readonly botLogPath: string;
	/** Starts the bot as a process of its own and waits until it is ready. */
	startBot(): Promise<void>;
	/** Sends a signal and waits for the process's end. */
	endBot(signal: NodeJS.Signals): Promise<void>;
	botIsRunning(): boolean;
	/** Resolves when the Hub's API lists the bot's webhook: from then on pushes and comments reach it. */
	webhookIsSetUp(): Promise<void>;
	/** Ends the bot, whatever run it left, and the Hub. */
	close(): Promise<void>;
};

export class StackError extends Error {
	override readonly name = "StackError";
}

/** A port that was free a moment ago: the bot's address has to be known before it starts, and outlive its restarts. */
async function freePort(): Promise<number> {
	const server = createServer();
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	server.close();
	await once(server, "close");
	if (address === null || typeof address === "string") throw new StackError("No TCP port is free on 127.0.0.1.");
	return address.port;
}

function token(): string {
	return `hf_${randomBytes(16).toString("hex")}`;
}

const text = (name: string): string => join(root, "demo", "text", `${name}.txt`);

/** The recipes and texts of the demo; seconds, not minutes, on two cores. */
export const DEMO_QUANTIZATION = {
	calibration: {
		kind: "text",
		files: [text("calibration-prose"), text("calibration-code")],
		sequences: 128,
		length: 256,
		seed: 0,
	},
	evaluation: {
		selection: [
			{ domain: "prose", path: text("selection-prose") },
			{ domain: "code", path: text("selection-code") },
		],
		report: [
			{ domain: "prose", path: text("report-prose") },
			{ domain: "code", path: text("report-code") },
		],
		sequences: 24,
		length: 256,
		verificationSequences: 4,
	},
	// What keeps the demo at about three minutes on two cores.
	sketch: { iterations: 3 },
	tuning: { passes: 1 },
} as const satisfies ConfigurationInput["quantization"];

function isPlainObject(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

function layered(base: unknown, over: unknown): unknown {
	if (over === undefined) return base;
	if (!isPlainObject(base) || !isPlainObject(over)) return over;
	const merged: Record<string, unknown> = { ...base };
	for (const [key, value] of Object.entries(over)) merged[key] = layered(merged[key], value);
	return merged;
}

/** Variables of the surroundings that must not reach a program that plays with a Hub of its own. */
const FOREIGN = /^(HF_|HUGGING_?FACE|YAQA_|DATABASE_URL$|PORT$)/;

/** The surroundings without anything that points at a real Hub, a real database or a real token. */
export function cleanEnvironment(more: Readonly<Record<string, string>>): Record<string, string> {
	const kept = Object.entries(process.env).flatMap(([name, value]) =>
		value === undefined || FOREIGN.test(name) ? [] : [[name, value] as const],
	);
	return { ...Object.fromEntries(kept), ...more };
}

async function isReady(url: string): Promise<boolean> {
	try {
		const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2000) });
		return response.ok;
	} catch {
		return false;
	}
}

export async function startStack(options: StackOptions): Promise<Stack> {
	const { dataDirectory } = options;
	await mkdir(dataDirectory, { recursive: true });
	const people: People = {
		owner: { name: "demo", token: token() },
		stranger: { name: "visitor", token: token() },
		bot: { name: "yaqa-bot", token: token(), readToken: token() },
	};
	const webhookSecret = randomBytes(24).toString("hex");
	const signInSecret = randomBytes(24).toString("hex");
	const botPort = options.botPort === undefined || options.botPort === 0 ? await freePort() : options.botPort;
	const botUrl = `http://127.0.0.1:${botPort}`;
	const hubLog = createWriteStream(join(dataDirectory, "hub.log"), { flags: "a" });
	const hub = await startLocalHub({
		dataDirectory: join(dataDirectory, "hub"),
		host: "127.0.0.1",
		port: options.hubPort ?? 0,
		users: [
			{ name: people.owner.name, token: people.owner.token, role: "write" },
			{ name: people.stranger.name, token: people.stranger.token, role: "write" },
			{
				name: people.bot.name,
				token: people.bot.token,
				role: "write",
				moreTokens: [{ token: people.bot.readToken, role: "read", name: "read" }],
			},
		],
		oauthApps: [
			{
				clientId: "yaqa-bot",
				clientSecret: signInSecret,
				name: "yaqa-bot of the demo",
				redirectUris: [`${botUrl}/auth/callback`],
				scopes: ["openid", "profile", "read-repos"],
			},
		],
		clock: systemClock,
		log: createLog({ level: "info", write: (line) => hubLog.write(`${line}\n`), now: () => new Date() }),
		...(options.webhookRetryMilliseconds === undefined
			? {}
			: { webhookRetryMilliseconds: options.webhookRetryMilliseconds }),
	});
	// For whoever wants to push and comment by hand, or from a test: accounts of this Hub only.
	await writeFile(
		join(dataDirectory, "accounts.json"),
		`${JSON.stringify({ hubUrl: hub.url, botUrl, ...people }, null, "\t")}\n`,
		{ mode: 0o600 },
	);
	const configurationPath = join(dataDirectory, "yaqa-bot.yaml");
	const botLogPath = join(dataDirectory, "bot.log");
	const configuration = layered(
		{
			server: { host: "127.0.0.1", port: botPort, publicUrl: botUrl },
			hub: { url: hub.url, namespace: people.bot.name, botUser: people.bot.name, mention: "yaqa-bot" },
			signIn: { clientId: "yaqa-bot", operators: [people.owner.name] },
			database: { dataDirectory: join(dataDirectory, "bot") },
			watch: { namespaces: [people.owner.name] },
			quantization: DEMO_QUANTIZATION,
			runner: { python: venvPython },
		} satisfies ConfigurationInput,
		options.configuration,
	);
	// JSON is YAML.
	await writeFile(configurationPath, `${JSON.stringify(configuration, null, "\t")}\n`);
	const bot = await readyToStart();

	async function readyToStart() {
		let child: ChildProcess | null = null;
		let ended: Promise<unknown> = Promise.resolve();
		async function start(): Promise<void> {
			if (child !== null) throw new StackError("The bot runs already.");
			const output = createWriteStream(botLogPath, { flags: "a" });
			const started = spawn(process.execPath, [join(root, "src", "main.ts"), "serve", "--config", configurationPath], {
				cwd: root,
				stdio: ["ignore", "pipe", "pipe"],
				// A group of its own: Ctrl-C in the terminal is the demo's to pass on, in its order.
				detached: true,
				env: cleanEnvironment({
					YAQA_BOT_HUB_TOKEN: people.bot.token,
					YAQA_BOT_READ_TOKEN: people.bot.readToken,
					YAQA_BOT_WEBHOOK_SECRET: webhookSecret,
					YAQA_BOT_OAUTH_CLIENT_SECRET: signInSecret,
					...(options.databaseUrl ? { DATABASE_URL: options.databaseUrl } : {}),
					...options.environment,
				}),
			});
			started.stdout.pipe(output, { end: false });
			started.stderr.pipe(output, { end: false });
			child = started;
			ended = once(started, "exit").then(() => {
				child = null;
			});
			const deadline = Date.now() + 60_000;
			while (!(await isReady(botUrl))) {
				if (child === null) {
					const log = await readFile(botLogPath, "utf8");
					throw new StackError(`The bot ended while it started. The end of ${botLogPath}:\n${log.slice(-2000)}`);
				}
				if (Date.now() > deadline) throw new StackError(`The bot was not ready within a minute; see ${botLogPath}.`);
				await sleep(100);
			}
		}
		async function end(signal: NodeJS.Signals): Promise<void> {
			if (child === null) return;
			child.kill(signal);
			await ended;
		}
		return { start, end, isRunning: () => child !== null };
	}

	/** The bot sets its webhook up by itself once it is ready; a second one would deliver everything twice. */
	async function webhookIsSetUp(): Promise<void> {
		const url = `${botUrl}/webhooks/hub`;
		const deadline = Date.now() + 60_000;
		for (;;) {
			const known = await listWebhooks({ hubUrl: hub.url, accessToken: people.bot.token });
			if (known.some((webhook) => webhook.url === url && webhook.disabled === false)) return;
			if (Date.now() > deadline) throw new StackError(`The bot did not set up its webhook; see ${botLogPath}.`);
			await sleep(100);
		}
	}

	let closing: Promise<void> | null = null;
	async function close(): Promise<void> {
		const late = setTimeout(() => void bot.end("SIGKILL"), 30_000);
		await bot.end("SIGTERM");
		clearTimeout(late);
		await endRuns(join(dataDirectory, "bot"));
		await hub.close();
		hubLog.end();
	}

	return {
		hub,
		people,
		botUrl,
		webhookSecret,
		dataDirectory,
		botLogPath,
		startBot: bot.start,
		endBot: bot.end,
		botIsRunning: bot.isRunning,
		webhookIsSetUp,
		close: () => {
			closing ??= close();
			return closing;
		},
	};
}
