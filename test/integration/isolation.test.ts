import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
	chmodSync,
	existsSync,
	mkdirSync,
	mkdtempSync,
	readFileSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { ISOLATION_SCRIPT } from "../../src/config/project-paths.ts";
import { silentLog } from "../../src/log.ts";
import { type JobSpec, parsedRecipe } from "../../src/protocol/job-spec.ts";
import { type Isolation, measureIsolation } from "../../src/runners/isolation.ts";
import { createLocalRunner } from "../../src/runners/local.ts";
import { python, root, withoutPython } from "../support/local-hub-fixture.ts";
import { recipeOf } from "../support/recipe-of.ts";
import { until } from "../support/scripted-bot.ts";

const CANARY = `canary-${randomUUID()}`;
const PROGRAM = fileURLToPath(new URL("../support/hostile-runner.mjs", import.meta.url));
const isRoot = process.getuid?.() === 0;
const NOBODY = 65_534;

let folder: string;
/** A place that is in nobody's data directory, as the bot's own program is. */
let checkout: string;
let measured: Isolation;
const server = createServer((socket) => socket.end());
const sockets = createServer((socket) => socket.end());

before(async () => {
	folder = mkdtempSync(join(tmpdir(), "yaqa-isolation-"));
	chmodSync(folder, 0o755);
	mkdirSync(join(folder, "home"));
	mkdirSync(join(root, ".cache"), { recursive: true });
	checkout = mkdtempSync(join(root, ".cache", "isolation-"));
	chmodSync(checkout, 0o777);
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	await new Promise<void>((resolve) => sockets.listen(join(folder, "service.sock"), resolve));
	if (withoutPython === false) {
		measured = await measureIsolation(isolation(), { folder: join(folder, "runs"), environment: environment() });
	}
});
after(() => {
	server.close();
	sockets.close();
	for (const path of [folder, checkout]) rmSync(path, { recursive: true, force: true });
});

const environment = () => ({ PATH: process.env["PATH"] ?? "" });
const isolation = () => ({
	python,
	script: ISOLATION_SCRIPT,
	hidden: [folder, tmpdir(), "/run"],
	shown: [PROGRAM],
	required: false,
});

/** What a bot keeps beside its runs, with the canary in all of it. */
function secretsOfTheBot() {
	const files = ["database", "yaqa-bot.yaml", "home/.cache/huggingface/token"].map((name) => join(folder, name));
	for (const path of files) {
		mkdirSync(join(path, ".."), { recursive: true });
		writeFileSync(path, CANARY);
		// As careless as it may be: not the mode of a file has to save it.
		chmodSync(path, 0o666);
	}
	return files;
}

function hostileSpec(files: readonly string[]): JobSpec {
	const job = randomUUID();
	const path = join(folder, "sources", job);
	mkdirSync(path, { recursive: true });
	const address = server.address();
	const port = typeof address === "object" && address !== null ? address.port : 0;
	writeFileSync(
		join(path, "behaviour.json"),
		JSON.stringify({
			canary: CANARY,
			files,
			written: [...files, join(folder, "runs", "planted"), join(checkout, "planted")],
			addresses: [{ host: "127.0.0.1", port }, { path: join(folder, "service.sock") }],
			covered: folder,
		}),
	);
	return {
		protocol: 1,
		job,
		fence: 1,
		source: { repo: "acme/model", revision: "a".repeat(40), path },
		calibration: { kind: "self", sequences: 1, length: 8, seed: 0 },
		evaluation: { selection: [], report: [], sequences: 2, length: 8, verificationSequences: 1 },
		sketch: { kind: "a", iterations: 6, sigmaInput: 0.01, sigmaOutput: 0.1 },
		tuning: { passes: 1 },
		variants: [{ id: randomUUID(), recipe: parsedRecipe(recipeOf("gguf:q4_0")) }],
		staging: { kind: "directory", path: "/nowhere" },
		limits: { device: "cpu" },
	};
}

/** A process like the bot: the canary in its environment, and of the account that runs would have. */
function victim(uid: number | null): { readonly pid: number; readonly kill: () => void } {
	const child = spawn("sleep", ["300"], {
		env: { ...environment(), YAQA_BOT_HUB_TOKEN: CANARY },
		stdio: "ignore",
		...(uid === null ? {} : { uid, gid: uid }),
	});
	return { pid: child.pid ?? 0, kill: () => child.kill("SIGKILL") };
}

function assertUntouched(files: readonly string[]): void {
	for (const path of files) assert.equal(readFileSync(path, "utf8"), CANARY, path);
	assert.ok(!existsSync(join(folder, "runs", "planted")));
	assert.ok(!existsSync(join(checkout, "planted")));
}

test("a model that takes the run over finds no token, no database, no other process and no network", {
	skip: withoutPython,
}, async (context) => {
	if (measured.level === "none") return context.skip(`skipped: no namespaces (${measured.reason})`);
	const files = secretsOfTheBot();
	// The bot itself, and one that shares whatever account the run gets.
	const bots = [victim(null), ...(isRoot ? [victim(NOBODY)] : [])];
	try {
		const runner = createLocalRunner({
			runsDirectory: join(folder, "runs"),
			logsDirectory: join(folder, "logs"),
			cacheDirectory: join(folder, "cache"),
			python: process.execPath,
			programArguments: [PROGRAM],
			runnerDirectory: "/",
			environment: environment(),
			timeoutSeconds: 60,
			memoryBytes: null,
			graceSeconds: 1,
			isolation: isolation(),
			log: silentLog,
		});
		const { handle } = await runner.dispatch(hostileSpec(files));
		await until("the run to end", async () => ((await runner.observe(handle)).status === "running" ? null : true));
		const to = join(folder, "collected", handle);
		await runner.collect(handle, to);
		const findings = JSON.parse(readFileSync(join(to, "findings.json"), "utf8"));
		assert.deepEqual(findings.found, []);
		assert.equal(findings.user, measured.level === "own-account" ? NOBODY : process.getuid?.());
		assert.ok(findings.processes <= 3, `${findings.processes} processes are visible`);
		for (const { pid } of bots) assert.ok(existsSync(`/proc/${pid}`), "the bot lives");
		assertUntouched(files);
		await runner.discard(handle);
	} finally {
		for (const bot of bots) bot.kill();
	}
});

test("the bot's own account is enough: the same holds where nobody is root", {
	skip: withoutPython,
}, async (context) => {
	if (measured.level === "none") return context.skip(`skipped: no namespaces (${measured.reason})`);
	const files = secretsOfTheBot();
	const account = isRoot ? NOBODY : null;
	const bot = victim(account);
	const written = mkdtempSync(join(folder, "out-"));
	chmodSync(written, 0o777);
	const spec = hostileSpec(files);
	const specPath = join(folder, "job.json");
	writeFileSync(specPath, JSON.stringify(spec));
	try {
		const plan = {
			...{
				hidden: [...isolation().hidden, "/root"],
				shown: [process.execPath, PROGRAM, specPath, spec.source.path ?? ""],
			},
			...{ read: [], written: [written], user: null, namespaces: true },
		};
		// As root the interpreter may lie where another account cannot go; the system's own is enough for this script.
		const [program = "", ...args] = [
			...(isRoot ? ["/usr/bin/python3"] : [python]),
			...["-I", ISOLATION_SCRIPT, JSON.stringify(plan), process.execPath, PROGRAM, "run", specPath, "--out", written],
		];
		if (!existsSync(program)) return context.skip(`skipped: no ${program}`);
		const child = spawn(program, args, {
			env: environment(),
			cwd: "/",
			stdio: ["ignore", "ignore", "pipe"],
			...(account === null ? {} : { uid: account, gid: account }),
		});
		let said = "";
		child.stderr.on("data", (chunk: Buffer) => {
			said += chunk.toString("utf8");
		});
		const code = await new Promise((resolve) => child.on("close", resolve));
		if (code === 97) return context.skip(`skipped: no user namespaces (${said.trim()})`);
		assert.equal(code, 0, said);
		const findings = JSON.parse(readFileSync(join(written, "findings.json"), "utf8"));
		assert.deepEqual(findings.found, []);
		assertUntouched(files);
	} finally {
		bot.kill();
	}
});

test("without isolation the same model finds the canary: the test would notice", { skip: withoutPython }, async () => {
	const files = secretsOfTheBot();
	const bot = victim(null);
	const out = mkdtempSync(join(folder, "open-"));
	const specPath = join(folder, "open.json");
	writeFileSync(specPath, JSON.stringify(hostileSpec(files)));
	const child = spawn(process.execPath, [PROGRAM, "run", specPath, "--out", out], {
		env: environment(),
		stdio: "ignore",
	});
	await new Promise((resolve) => child.on("close", resolve));
	bot.kill();
	const { found } = JSON.parse(readFileSync(join(out, "findings.json"), "utf8")) as { found: string[] };
	assert.ok(found.includes(`the environment of process ${bot.pid}`), found.join());
	assert.ok(found.includes(files[0] ?? ""));
	assert.ok(found.some((line) => line.startsWith("a connection")));
	assert.ok(existsSync(join(checkout, "planted")));
	rmSync(join(checkout, "planted"));
});

test("a folder that is written to may be reached by a link, as of a data directory that lies elsewhere", {
	skip: withoutPython,
}, async (context) => {
	if (measured.level === "none") return context.skip(`skipped: no namespaces (${measured.reason})`);
	const kept = mkdtempSync(join(folder, "kept-"));
	const linked = join(mkdtempSync(join(folder, "data-")), "cache");
	symlinkSync(kept, linked);
	const written = join(linked, "numba");
	mkdirSync(written);
	const script = "import pathlib, sys; pathlib.Path(sys.argv[1], 'kernel').write_text('compiled')";
	const [program = "", ...args] = measured.wrap([python, "-c", script, written], { shown: [], written: [written] });
	const child = spawn(program, args, { env: environment(), stdio: ["ignore", "ignore", "inherit"] });
	assert.equal(await new Promise((resolve) => child.on("close", resolve)), 0);
	assert.equal(readFileSync(join(kept, "numba", "kernel"), "utf8"), "compiled");
});

test("a run that ends badly inside ends the same way outside, and cancelling leaves nothing of it", {
	skip: withoutPython,
}, async (context) => {
	if (measured.level === "none") return context.skip(`skipped: no namespaces (${measured.reason})`);
	const written = mkdtempSync(join(folder, "end-"));
	const ended = (script: string, signal: NodeJS.Signals | null = null) => {
		const command = measured.wrap([python, "-c", script], { shown: [], written: [written] });
		const child = spawn(command[0] ?? "", command.slice(1), {
			env: environment(),
			stdio: ["ignore", "pipe", "ignore"],
		});
		if (signal !== null) child.stdout.once("data", () => child.kill(signal));
		return new Promise((resolve) => child.on("close", (code, by) => resolve([code, by])));
	};
	assert.deepEqual(await ended("raise SystemExit(75)"), [75, null]);
	assert.deepEqual(await ended("import os; os.kill(os.getpid(), 9)"), [null, "SIGKILL"]);
	assert.deepEqual(await ended("import os; os.abort()"), [null, "SIGABRT"]);
	const patient = "import time; print('up', flush=True); time.sleep(100)";
	assert.deepEqual(await ended(patient, "SIGTERM"), [null, "SIGTERM"]);
	// What left the process group dies with the namespace.
	const marker = join(written, "beat");
	const escaping = `
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time\\nwhile True:\\n open(${JSON.stringify(marker).replaceAll('"', "'")}, 'w').write(str(time.time()))\\n time.sleep(0.05)"], start_new_session=True)
time.sleep(1)
print("up", flush=True)
time.sleep(100)`;
	assert.deepEqual(await ended(escaping, "SIGKILL"), [null, "SIGKILL"]);
	await new Promise((resolve) => setTimeout(resolve, 300));
	const last = readFileSync(marker, "utf8");
	await new Promise((resolve) => setTimeout(resolve, 300));
	assert.equal(readFileSync(marker, "utf8"), last);
});
