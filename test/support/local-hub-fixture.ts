import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { LocalHubUser } from "../../src/local-hub/accounts.ts";
import { type LocalHub, type LocalHubOptions, startLocalHub } from "../../src/local-hub/start-local-hub.ts";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const python = join(root, "gpu-runner", ".venv", "bin", "python");
export const hfCommand = join(root, "gpu-runner", ".venv", "bin", "hf");
export const withoutPython = existsSync(python) ? false : "skipped: gpu-runner/.venv is not set up";

export const OWNER = "hf_owner_token";
export const READER = "hf_owner_read_token";
export const BOT = "hf_bot_token";
export const SCOPED = "hf_bot_scoped_token";
export const STRANGER = "hf_stranger_token";

export const users: readonly LocalHubUser[] = [
	{
		name: "owner",
		token: OWNER,
		orgs: [{ name: "lab", role: "admin" }],
		moreTokens: [{ token: READER, role: "read" }],
	},
	{
		name: "bot",
		token: BOT,
		orgs: [{ name: "lab", role: "write" }],
		moreTokens: [{ token: SCOPED, role: "fineGrained", writeNamespaces: ["lab"], discussions: true }],
	},
	{ name: "stranger", token: STRANGER },
];

export async function temporaryFolder(context: TestContext): Promise<string> {
	const folder = await mkdtemp(join(tmpdir(), "local-hub-test-"));
	context.after(() => rm(folder, { recursive: true, force: true }));
	return folder;
}

export async function testHub(
	context: TestContext,
	options: Partial<LocalHubOptions> = {},
): Promise<LocalHub & { dataDirectory: string }> {
	const dataDirectory = options.dataDirectory ?? (await temporaryFolder(context));
	const hub = await startLocalHub({ users, webhookRetryMilliseconds: [10, 10], ...options, dataDirectory });
	context.after(() => hub.close());
	return { ...hub, dataDirectory };
}

export type Answer = { status: number; headers: Headers; text: string; json: unknown };

/** One plain request. A string body goes as it is, anything else as JSON. */
export async function call(
	url: string,
	options: { method?: string; token?: string | null; body?: unknown; headers?: Record<string, string> } = {},
): Promise<Answer> {
	const headers: Record<string, string> = { ...options.headers };
	if (options.token) headers["Authorization"] = `Bearer ${options.token}`;
	let body: string | null = null;
	if (options.body !== undefined) {
		headers["Content-Type"] ??= "application/json";
		body = typeof options.body === "string" ? options.body : JSON.stringify(options.body);
	}
	const response = await fetch(url, {
		method: options.method ?? (body === null ? "GET" : "POST"),
		headers,
		body,
		redirect: "manual",
	});
	const text = await response.text();
	let json: unknown = null;
	try {
		json = JSON.parse(text);
	} catch {
		json = null;
	}
	return { status: response.status, headers: response.headers, text, json };
}

/** Reads `a.b.0` out of parsed JSON. */
export function at(value: unknown, path: string): unknown {
	let found: unknown = value;
	for (const key of path.split(".")) {
		if (typeof found !== "object" || found === null) return undefined;
		found = Reflect.get(found, key);
	}
	return found;
}

export function textAt(value: unknown, path: string): string {
	const found = at(value, path);
	assert.equal(typeof found, "string", `${path} of ${JSON.stringify(value)?.slice(0, 300)}`);
	return String(found);
}

export async function createRepo(
	hub: LocalHub,
	name: string,
	token = OWNER,
	more: Record<string, unknown> = {},
): Promise<void> {
	const [organization, repo] = name.split("/");
	const answer = await call(`${hub.url}/api/repos/create`, { token, body: { organization, name: repo, ...more } });
	assert.equal(answer.status, 200, answer.text);
}

type Line = { key: string; value: Record<string, unknown> };

export function commit(
	hub: LocalHub,
	name: string,
	lines: readonly Line[],
	options: { token?: string; revision?: string; parentCommit?: string; summary?: string; query?: string } = {},
): Promise<Answer> {
	const header = {
		key: "header",
		value: {
			summary: options.summary ?? "Change files",
			...(options.parentCommit ? { parentCommit: options.parentCommit } : {}),
		},
	};
	return call(
		`${hub.url}/api/models/${name}/commit/${encodeURIComponent(options.revision ?? "main")}${options.query ?? ""}`,
		{
			token: options.token ?? OWNER,
			body: [header, ...lines].map((line) => JSON.stringify(line)).join("\n"),
			headers: { "Content-Type": "application/x-ndjson" },
		},
	);
}

export function file(path: string, content: string): Line {
	return { key: "file", value: { path, content, encoding: "utf-8" } };
}

type Received = { headers: IncomingHttpHeaders; body: unknown };

/** A webhook's receiving end; `answer` says what status the n-th delivery gets. */
export async function receiver(
	context: TestContext,
	answer: (count: number) => number = () => 200,
): Promise<{ url: string; received: Received[]; waitFor(count: number): Promise<void> }> {
	const received: Received[] = [];
	const waiting: { count: number; resolve: () => void }[] = [];
	const server = createServer((request, response) => {
		const chunks: Buffer[] = [];
		request.on("data", (chunk: Buffer) => chunks.push(chunk));
		request.on("end", () => {
			received.push({ headers: request.headers, body: JSON.parse(Buffer.concat(chunks).toString("utf8")) });
			response.writeHead(answer(received.length)).end();
			for (const one of waiting) if (received.length >= one.count) one.resolve();
		});
	});
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	context.after(() => {
		server.closeAllConnections();
		server.close();
	});
	const address = server.address();
	assert.ok(typeof address === "object" && address !== null);
	return {
		url: `http://127.0.0.1:${address.port}/hook`,
		received,
		waitFor: (count) =>
			received.length >= count
				? Promise.resolve()
				: new Promise((resolve) => {
						waiting.push({ count, resolve });
					}),
	};
}

/** Runs a program to its end; its output only matters when it fails. */
export async function run(
	program: string,
	args: readonly string[],
	environment: Readonly<Record<string, string>>,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
	const child = spawn(program, args, {
		env: { PATH: process.env["PATH"] ?? "", ...environment },
		stdio: ["ignore", "pipe", "pipe"],
	});
	let stdout = "";
	let stderr = "";
	child.stdout.on("data", (chunk: Buffer) => {
		stdout += chunk.toString("utf8");
	});
	child.stderr.on("data", (chunk: Buffer) => {
		stderr += chunk.toString("utf8");
	});
	const code = await new Promise<number | null>((resolve, reject) => {
		child.on("error", reject);
		child.on("close", resolve);
	});
	return { code, stdout, stderr };
}

export function pythonEnvironment(hub: LocalHub, home: string, token: string): Record<string, string> {
	return {
		HF_ENDPOINT: hub.url,
		HF_TOKEN: token,
		HF_HOME: home,
		HOME: home,
		HF_HUB_DISABLE_PROGRESS_BARS: "1",
		HF_HUB_DISABLE_TELEMETRY: "1",
		OMP_NUM_THREADS: "1",
		NO_COLOR: "1",
	};
}
