import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cleanEnvironment, root } from "../../demo/stack.ts";
import type { ConfigurationInput } from "../../src/config/schema.ts";
import { freePort } from "../support/own-postgres.ts";

/** One bot as a process of its own that comes back whenever it was killed. */
export type StormBot = {
	readonly url: string;
	start(): Promise<void>;
	isReady(): boolean;
	/** SIGKILL, and at once the next start; `false` where there was none to kill. */
	kill(): boolean;
	/** Lets the clock of this bot alone be wrong. */
	setClockOffset(milliseconds: number): void;
	/** A graceful stop; the exit code. */
	stop(): Promise<number | null>;
	abandon(): void;
};

export async function stormBot(options: {
	readonly folder: string;
	readonly configuration: ConfigurationInput;
	readonly environment: Readonly<Record<string, string>>;
}): Promise<StormBot> {
	const { folder, configuration } = options;
	mkdirSync(folder, { recursive: true });
	const port = await freePort();
	const url = `http://127.0.0.1:${port}`;
	const configurationPath = join(folder, "yaqa-bot.yaml");
	const server = { ...configuration.server, host: "127.0.0.1", port };
	const dataDirectory = join(folder, "data");
	// JSON is YAML.
	writeFileSync(configurationPath, JSON.stringify({ ...configuration, server, database: { dataDirectory } }));
	const clockPath = join(folder, "clock");
	writeFileSync(clockPath, "0");
	let child: ChildProcess | null = null;
	let ready = false;
	let ended = false;

	function begin(): void {
		ready = false;
		const output = createWriteStream(join(folder, "bot.log"), { flags: "a" });
		const started = spawn(
			process.execPath,
			[
				...["--import", join(import.meta.dirname, "jumping-clock.mjs")],
				...[join(root, "src", "main.ts"), "serve", "--config", configurationPath],
			],
			{
				cwd: root,
				stdio: ["ignore", "pipe", "pipe"],
				env: cleanEnvironment({
					...options.environment,
					CLOCK_OFFSET_FILE: clockPath,
					// A bot that is killed a hundred times spends most of its life starting.
					NODE_COMPILE_CACHE: join(root, ".cache", "compile"),
				}),
			},
		);
		started.stdout.pipe(output, { end: false });
		started.stderr.pipe(output, { end: false });
		child = started;
		started.on("exit", () => {
			if (child !== started) return;
			ready = false;
			// A bot that finds no database ends; whoever runs it starts it again.
			if (!ended) setTimeout(() => child === started && !ended && begin(), 500);
		});
		void (async () => {
			while (child === started && !ended) {
				const answered = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(5000) }).then(
					(response) => response.ok,
					() => false,
				);
				if (answered) {
					ready = child === started;
					return;
				}
				await sleep(200);
			}
		})();
	}

	return {
		url,
		isReady: () => ready,
		async start() {
			begin();
			while (!ready) await sleep(100);
		},
		kill() {
			if (child === null || child.exitCode !== null || child.signalCode !== null) return false;
			const doomed = child;
			child = null;
			ready = false;
			doomed.kill("SIGKILL");
			void once(doomed, "exit").then(() => ended || begin());
			return true;
		},
		setClockOffset: (milliseconds) => writeFileSync(clockPath, String(milliseconds)),
		async stop() {
			ended = true;
			if (child === null || child.exitCode !== null) return child?.exitCode ?? null;
			const stopping = child;
			const exit = once(stopping, "exit");
			stopping.kill("SIGTERM");
			const late = setTimeout(() => stopping.kill("SIGKILL"), 60_000);
			await exit;
			clearTimeout(late);
			return stopping.exitCode;
		},
		abandon() {
			ended = true;
			child?.kill("SIGKILL");
		},
	};
}

async function bodyOf(request: IncomingMessage): Promise<Buffer<ArrayBuffer>> {
	const parts: Buffer[] = [];
	for await (const part of request) parts.push(part);
	return Buffer.concat(parts);
}

/** What tells the bot who sends, and which delivery it is. */
const PASSED_ON = [
	...["content-type", "x-webhook-secret", "webhook-id"],
	...["x-github-event", "x-github-delivery", "x-hub-signature-256"],
] as const;

/** The one address of all replicas, as a balancer is: whoever is there gets a delivery. Keeps what was acknowledged. */
export async function stormBalancer(replicas: () => readonly StormBot[]) {
	const accepted: string[] = [];
	const server: Server = createServer((request, response) => {
		void (async () => {
			const body = await bodyOf(request);
			const id = request.headers["webhook-id"] ?? request.headers["x-github-delivery"];
			const headers = Object.fromEntries(
				PASSED_ON.flatMap((name) => {
					const value = request.headers[name];
					return value === undefined ? [] : [[name, String(value)]];
				}),
			);
			for (const replica of replicas().toSorted(() => Math.random() - 0.5)) {
				try {
					const answer = await fetch(`${replica.url}${request.url}`, {
						method: request.method ?? "GET",
						headers,
						...(body.length === 0 ? {} : { body }),
						signal: AbortSignal.timeout(20_000),
					});
					const text = await answer.text();
					if (answer.status >= 500) continue;
					if (answer.ok && id !== undefined) accepted.push(String(id));
					response.writeHead(answer.status).end(text);
					return;
				} catch {
					// Killed, or not there yet: the next one, or the Hub's next attempt.
				}
			}
			response.writeHead(503).end();
		})();
	}).listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	if (address === null || typeof address === "string") throw new Error("No address.");
	return {
		url: `http://127.0.0.1:${address.port}`,
		accepted: () => accepted,
		close() {
			server.close();
			server.closeAllConnections();
		},
	};
}
