import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
	existsSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RetryableError } from "../../src/errors.ts";
import { silentLog } from "../../src/log.ts";
import { type JobSpec, parsedRecipe } from "../../src/protocol/job-spec.ts";
import { createLocalRunner, type LocalRunnerOptions } from "../../src/runners/local.ts";
import { listGroup } from "../../src/runners/process-group.ts";
import type { Observation, Runner } from "../../src/runners/runner.ts";
import { recipeOf } from "../support/recipe-of.ts";
import { until } from "../support/scripted-bot.ts";

const folder = mkdtempSync(join(tmpdir(), "yaqa-runner-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const PROGRAM = fileURLToPath(new URL("../support/scripted-runner.mjs", import.meta.url));

function options(more: Partial<LocalRunnerOptions> = {}): LocalRunnerOptions {
	return {
		runsDirectory: join(folder, "runs"),
		logsDirectory: join(folder, "logs"),
		cacheDirectory: join(folder, "cache"),
		python: process.execPath,
		programArguments: [PROGRAM],
		runnerDirectory: folder,
		environment: { PATH: process.env["PATH"] ?? "" },
		timeoutSeconds: 60,
		memoryBytes: null,
		graceSeconds: 1,
		log: silentLog,
		...more,
	};
}

function specOf(behaviour: Readonly<Record<string, unknown>>): JobSpec {
	const job = randomUUID();
	const path = join(folder, "sources", job);
	mkdirSync(path, { recursive: true });
	writeFileSync(join(path, "behaviour.json"), JSON.stringify(behaviour));
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

async function ended(runner: Runner, handle: string): Promise<Exclude<Observation, { status: "running" }>> {
	return await until("the run to end", async () => {
		const observation = await runner.observe(handle);
		return observation.status === "running" ? null : observation;
	});
}

function leaderOf(handle: string): number {
	const text = readFileSync(join(folder, "runs", handle, "process.json"), "utf8");
	return (JSON.parse(text) as { pid: number }).pid;
}

test("a run is found again, its events numbered, its files collected, its log kept", async () => {
	const runner = createLocalRunner(options());
	const spec = specOf({ steps: 3, delayMs: 10 });
	const [one, other] = await Promise.all([runner.dispatch(spec), runner.dispatch(spec)]);
	assert.deepEqual(one, other);
	const { handle } = one;
	const observation = await ended(runner, handle);
	assert.ok(observation.status === "finished" && observation.result.ok);
	const events = await runner.events(handle, 0);
	assert.deepEqual(
		events.map((event) => event.number),
		[1, 2, 3, 4, 5],
	);
	assert.deepEqual(
		(await createLocalRunner(options()).events(handle, 3)).map((event) => event.number),
		[4, 5],
	);
	assert.deepEqual(await runner.events(handle, 3), events.slice(3));
	const to = join(folder, "collected", handle);
	await runner.collect(handle, to);
	await runner.collect(handle, to);
	assert.ok(existsSync(join(to, "gguf-q4-0", "manifest.json")));
	await runner.discard(handle);
	await runner.discard(handle);
	assert.equal(existsSync(join(folder, "runs", handle)), false);
	assert.ok(existsSync(join(to, "verification.safetensors")));
	assert.match(readFileSync(join(folder, "logs", `${handle}.log`), "utf8"), /environment/);
	assert.equal(await runner.find(spec.job, 1), null);
});

test("a run sees none of the bot's environment and cannot reach the Hub by accident", async () => {
	process.env["YAQA_BOT_HUB_TOKEN"] = "hf_canarycanary";
	const runner = createLocalRunner(options());
	const { handle } = await runner.dispatch(specOf({}));
	delete process.env["YAQA_BOT_HUB_TOKEN"];
	await ended(runner, handle);
	const [line = ""] = readFileSync(join(folder, "runs", handle, "stderr.log"), "utf8").split("\n");
	const environment = JSON.parse(line.replace("environment: ", "")) as Record<string, string>;
	assert.ok(!line.includes("canary"));
	assert.equal(environment["HF_HUB_OFFLINE"], "1");
	assert.equal(environment["HOME"], join(folder, "runs", handle, "home"));
	assert.deepEqual(
		Object.keys(environment).filter((name) => /TOKEN|SECRET|DATABASE/.test(name)),
		[],
	);
});

test("an operator's checkout of llama.cpp is handed to every run", async () => {
	const runner = createLocalRunner(options({ llamaCpp: "/srv/llama.cpp" }));
	const { handle } = await runner.dispatch(specOf({ steps: 1 }));
	await ended(runner, handle);
	const [, line = ""] = readFileSync(join(folder, "runs", handle, "stderr.log"), "utf8").split("\n");
	const given: unknown = JSON.parse(line.replace("arguments: ", ""));
	const run = join(folder, "runs", handle);
	assert.deepEqual(given, ["run", join(run, "job.json"), "--out", join(run, "out"), "--llama-cpp", "/srv/llama.cpp"]);
});

test("cancel ends a run that ignores SIGTERM, and everything in its group", async () => {
	const runner = createLocalRunner(options());
	const { handle } = await runner.dispatch(specOf({ hang: true, ignoreTerm: true, steps: 1 }));
	const leader = leaderOf(handle);
	await until("the program to run", async () => (listGroup(leader).length > 1 ? true : null));
	await runner.cancel(handle);
	assert.deepEqual(listGroup(leader), []);
	await runner.cancel(handle);
	const observation = await runner.observe(handle);
	assert.ok(observation.status === "lost");
});

test("a run that takes too long is ended with its reason", async () => {
	const runner = createLocalRunner(options({ timeoutSeconds: 0.5 }));
	const { handle } = await runner.dispatch(specOf({ hang: true, steps: 1 }));
	const observation = await ended(runner, handle);
	assert.ok(observation.status === "lost" && !observation.retryable);
	assert.equal(observation.refusal.code, "timed-out");
});

test("a run that holds too much memory is ended with its reason", async () => {
	const runner = createLocalRunner(options({ memoryBytes: 256 * 1024 * 1024 }));
	const { handle } = await runner.dispatch(specOf({ allocate: 1024 * 1024 * 1024, steps: 1 }));
	const observation = await ended(runner, handle);
	assert.ok(observation.status === "lost" && !observation.retryable);
	assert.equal(observation.refusal.code, "out-of-memory");
});

for (const [behaviour, code, retryable] of [
	[{ killItself: true }, "runner-lost", true],
	[{ exitCode: 75 }, "interrupted", true],
	[{ exitCode: 5 }, "disk-full", false],
	[{ exitCode: 4 }, "out-of-memory", false],
	[{ exitCode: 3 }, "source-refused", false],
	[{ exitCode: 2 }, "invalid-spec", false],
	[{ exitCode: 70 }, "internal", false],
] as const) {
	test(`a run that ends like ${JSON.stringify(behaviour)} is judged ${code}`, async () => {
		const runner = createLocalRunner(options());
		const { handle } = await runner.dispatch(specOf({ ...behaviour, steps: 1 }));
		const observation = await ended(runner, handle);
		assert.ok(observation.status === "lost");
		assert.equal(observation.refusal.code, code);
		assert.equal(observation.retryable, retryable);
	});
}

test("a program that is not there is told with the remedy", async () => {
	const runner = createLocalRunner(options({ python: "/nowhere/python" }));
	const { handle } = await runner.dispatch(specOf({}));
	const observation = await ended(runner, handle);
	assert.ok(observation.status === "lost" && !observation.retryable);
	assert.match(observation.refusal.remedy, /npm run setup/);
});

test("a run whose whole group was killed from outside is lost and may be tried again", async () => {
	const runner = createLocalRunner(options());
	const { handle } = await runner.dispatch(specOf({ hang: true, steps: 1 }));
	process.kill(-leaderOf(handle), "SIGKILL");
	const observation = await ended(runner, handle);
	assert.ok(observation.status === "lost" && observation.retryable);
});

test("another process with the run's old pid is neither taken for it nor killed", async () => {
	const runner = createLocalRunner(options());
	const { handle } = await runner.dispatch(specOf({ hang: true, steps: 1 }));
	process.kill(-leaderOf(handle), "SIGKILL");
	await ended(runner, handle);
	const bystander = spawn("sleep", ["30"], { detached: true, stdio: "ignore" });
	try {
		writeFileSync(
			join(folder, "runs", handle, "process.json"),
			JSON.stringify({ pid: bystander.pid, startTicks: "1" }),
		);
		assert.equal((await runner.observe(handle)).status, "lost");
		await runner.cancel(handle);
		assert.equal(bystander.exitCode, null);
		assert.ok(listGroup(bystander.pid ?? 0).length > 0);
	} finally {
		bystander.kill("SIGKILL");
	}
});

test("a link in the output is refused, and nothing is collected", async () => {
	const runner = createLocalRunner(options());
	const { handle } = await runner.dispatch(specOf({ steps: 1 }));
	await ended(runner, handle);
	symlinkSync("/etc/passwd", join(folder, "runs", handle, "out", "README.md"));
	const to = join(folder, "collected", handle);
	await assert.rejects(runner.collect(handle, to), /neither a file nor a folder/);
	assert.equal(existsSync(to), false);
});

test("a handle from outside cannot leave the runs folder", async () => {
	const runner = createLocalRunner(options());
	for (const handle of ["../../etc", "", "x".repeat(100)]) {
		await assert.rejects(runner.observe(handle), /not a handle/);
		await assert.rejects(runner.discard(handle), /not a handle/);
	}
});

test("lines that are no events, or another attempt's, are skipped and keep their numbers", async () => {
	const runner = createLocalRunner(options());
	const { handle } = await runner.dispatch(specOf({ steps: 1 }));
	await ended(runner, handle);
	const path = join(folder, "runs", handle, "events.jsonl");
	const whole = readFileSync(path, "utf8").trim().split("\n");
	const foreign = (whole[0] ?? "").replace('"fence":1', '"fence":9');
	writeFileSync(path, `${["a stray print", foreign, ...whole].join("\n")}\n{"event":"result","ok`);
	const fresh = createLocalRunner(options());
	assert.deepEqual(
		(await fresh.events(handle, 0)).map((event) => event.number),
		[3, 4, 5],
	);
	const observation = await fresh.observe(handle);
	assert.ok(observation.status === "finished", "the half line after the result does not count");
});

/** `null`: the run has not printed it whole yet. */
function environmentOf(handle: string): Record<string, string> | null {
	const [line = "", ...rest] = readFileSync(join(folder, "runs", handle, "stderr.log"), "utf8").split("\n");
	if (rest.length === 0) return null;
	return JSON.parse(line.replace("environment: ", "")) as Record<string, string>;
}

test("runs share the GPUs out, one each, also after a restart; what ends frees its own", async () => {
	const gpus = { devices: ["0", "GPU-1a2b"], perRun: 1 };
	const runner = createLocalRunner(options({ gpus }));
	const hanging = () => specOf({ hang: true, steps: 1 });
	const [one, other] = await Promise.all([runner.dispatch(hanging()), runner.dispatch(hanging())]);
	const started = async (handle: string) =>
		await until("the run to start", async () =>
			(await runner.events(handle, 0)).length > 0 ? environmentOf(handle) : null,
		);
	const devices = [
		(await started(one.handle)).CUDA_VISIBLE_DEVICES,
		(await started(other.handle)).CUDA_VISIBLE_DEVICES,
	];
	assert.deepEqual(devices.toSorted(), gpus.devices);
	// As the next process of the bot finds them: both are taken.
	const later = createLocalRunner(options({ gpus }));
	const waiting = hanging();
	await assert.rejects(later.dispatch(waiting), (error) => {
		assert.ok(error instanceof RetryableError);
		assert.match(error.message, /No GPU is free/);
		return true;
	});
	await later.cancel(one.handle);
	const third = await later.dispatch(waiting);
	assert.deepEqual(await later.dispatch(waiting), third);
	assert.equal((await started(third.handle)).CUDA_VISIBLE_DEVICES, devices[0]);
	await assert.rejects(
		createLocalRunner(options({ gpus: { ...gpus, perRun: 2 } })).dispatch(hanging()),
		/Fewer than 2/,
	);
	for (const { handle } of [other, third]) await later.cancel(handle);
	const both = await createLocalRunner(options({ gpus: { ...gpus, perRun: 2 } })).dispatch(hanging());
	assert.equal((await started(both.handle)).CUDA_VISIBLE_DEVICES, "0,GPU-1a2b");
	const argumentsOf = (handle: string): readonly string[] =>
		JSON.parse(readFileSync(join(folder, "runs", handle, "run.json"), "utf8")).arguments;
	assert.deepEqual(argumentsOf(both.handle).slice(-2), ["--processes", "2"]);
	assert.ok(!argumentsOf(one.handle).includes("--processes"));
	await later.cancel(both.handle);
	for (const { handle } of [one, other, third, both]) await later.discard(handle);
});

test("the next attempt of a killed run goes on from its checkpoint, and from nothing else of it", async () => {
	const runner = createLocalRunner(options());
	const spec = specOf({ checkpoint: true, hang: true, onlyFence: 1, steps: 1 });
	const { handle } = await runner.dispatch(spec);
	const checkpoint = join(folder, "runs", handle, "out", "sketch.partial", "block-of-1.json");
	await until("the checkpoint", async () => (existsSync(checkpoint) ? true : null));
	process.kill(-leaderOf(handle), "SIGKILL");
	assert.equal((await ended(runner, handle)).status, "lost");
	await runner.setAside(handle);
	await runner.setAside(handle);
	assert.ok(existsSync(join(folder, "logs", `${handle}.log`)));
	assert.ok(!(await runner.listHeld()).includes(handle));

	const next = createLocalRunner(options());
	const second = await next.dispatch({ ...spec, fence: 2 });
	const out = join(folder, "runs", second.handle, "out");
	assert.ok(existsSync(join(out, "sketch.partial", "block-of-1.json")));
	assert.ok(!existsSync(join(out, "half-a-variant")));
	assert.equal((await ended(next, second.handle)).status, "finished");
	// Lost once more, then given up: nothing stays.
	await next.setAside(second.handle);
	const third = await next.dispatch({ ...spec, fence: 3 });
	await ended(next, third.handle);
	await next.setAside(third.handle);
	await next.discard(third.handle);
	assert.deepEqual(
		readdirSync(join(folder, "runs")).filter((name) => name.startsWith(spec.job)),
		[],
	);
});
