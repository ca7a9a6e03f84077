import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Client } from "pg";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import type { Ports } from "../../src/jobs/ports.ts";
import { silentLog } from "../../src/log.ts";
import type { JobSpec } from "../../src/protocol/job-spec.ts";
import { recipeDirectory } from "../../src/protocol/recipe.ts";
import type { JobRecord } from "../../src/records/job.ts";
import { isFinished } from "../../src/records/job.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { type EngineWithRequests, engineWithRequests } from "../support/engine-with-requests.ts";
import { scriptedConfiguration } from "../support/scripted-bot.ts";
import { scriptedPorts, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

/**
 * `npm run bench:queue`: many jobs of many namespaces through several replicas, with a runner that only waits. Each
 * namespace queues all its jobs before the next one queues its first: the order in which a queue is least fair.
 */
const usage = `Usage: npm run bench:queue -- [--json] [--jobs 1000] [--namespaces 20] [--replicas 3] [--seconds 900]

Needs PostgreSQL: DATABASE_URL, or one on 127.0.0.1:5432. Ends with one JSON line:
  duplicateDispatches   runs started more than once
  lost                  jobs that are not done when all have ended, or when the time is over
  overheadMilliseconds  from a job's dispatch to its last state, less the time of its run
  fairness              the slowest namespace's mean wait over the fastest's`;

const RUN_MILLISECONDS = 50;
const SLOTS = 8;

const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		jobs: { type: "string", default: "1000" },
		namespaces: { type: "string", default: "20" },
		replicas: { type: "string", default: "3" },
		seconds: { type: "string", default: "900" },
		help: { type: "boolean", short: "h", default: false },
	},
});
if (values.help) {
	process.stdout.write(`${usage}\n`);
	process.exit(0);
}
function count(name: "jobs" | "namespaces" | "replicas" | "seconds"): number {
	const number = Number(values[name]);
	if (Number.isInteger(number) && number > 0) return number;
	process.stderr.write(`--${name} is a whole number above 0.\n\n${usage}\n`);
	process.exit(2);
}
const [jobs, namespaces, replicas, seconds] = [count("jobs"), count("namespaces"), count("replicas"), count("seconds")];

const started = new Map<string, number>();

function manifestOf(spec: JobSpec, variant: JobSpec["variants"][number]) {
	const metrics = {
		klNats: { mean: 0.01, standardError: 0.001, median: 0.01, p90: 0.02, p99: 0.05 },
		topOneAgreement: 0.95,
		perplexity: { original: 10, quantized: 10.1, ratio: 1.01 },
		sequences: 1,
		tokens: 8,
	};
	const zeros = "0".repeat(64);
	return {
		manifest: 1,
		job: spec.job,
		fence: spec.fence,
		variant: variant.id,
		recipe: variant.recipe,
		createdAt: new Date().toISOString(),
		source: { repo: spec.source.repo, revision: spec.source.revision, license: null },
		files: [{ path: "model.bin", size: 0, sha256: zeros }],
		generator: { name: "yaqa-runner", version: "0.0.0" },
		versions: {},
		device: { kind: "cpu", name: "none", driver: null },
		seeds: {},
		calibration: { kind: "self", sha256: zeros, sequences: 1, length: 8, tokens: 8 },
		sketch: { kind: "a", key: "none", iterations: 1, reused: false },
		seconds: {},
		quantizer: "rtn",
		gate: {
			selection: [{ quantizer: "rtn", klNats: { mean: 0.01, standardError: 0.001 } }],
			winner: "rtn",
			reason: "none",
		},
		evaluation: {
			convention: "none",
			texts: [],
			measured: [{ quantizer: "rtn", bytes: 1, report: metrics, byDomain: {} }],
		},
		verification: { klNats: 0.01, sequences: 1, positions: 1 },
		layers: [],
		unquantized: [],
	};
}

/** A runner that waits and then has a result. */
function waitingRunner(name: string): Runner {
	const runs = new Map<string, { readonly spec: JobSpec; readonly endsAt: number }>();
	const handleOf = (job: string, fence: number) => `${job}-${fence}`;
	return {
		name,
		isRemote: false,
		setAside: async () => undefined,
		listHeld: async () => [],
		async dispatch(spec) {
			const handle = handleOf(spec.job, spec.fence);
			if (!runs.has(handle)) {
				runs.set(handle, { spec, endsAt: Date.now() + RUN_MILLISECONDS });
				started.set(spec.job, (started.get(spec.job) ?? 0) + 1);
			}
			return { handle };
		},
		find: async (job, fence) => (runs.has(handleOf(job, fence)) ? handleOf(job, fence) : null),
		async observe(handle) {
			const run = runs.get(handle);
			if (run === undefined) {
				const refusal = { code: "runner-lost", message: "The run is gone.", remedy: "None." } as const;
				return { status: "lost", refusal, retryable: true };
			}
			if (Date.now() < run.endsAt) return { status: "running" };
			const { spec } = run;
			return {
				status: "finished",
				result: {
					event: "result",
					ok: true,
					job: spec.job,
					fence: spec.fence,
					at: new Date().toISOString(),
					variants: spec.variants.map(({ id, recipe: { canonical } }) => ({
						id,
						recipe: canonical,
						directory: recipeDirectory(canonical),
					})),
					refused: [],
					sketch: { key: "none", directory: "sketch" },
					verification: "verification.safetensors",
				},
			};
		},
		events: async () => [],
		cancel: async () => {},
		async collect(handle, directory) {
			const spec = runs.get(handle)?.spec;
			if (spec === undefined) throw new Error("The run is gone.");
			mkdirSync(join(directory, "sketch"), { recursive: true });
			writeFileSync(join(directory, "verification.safetensors"), "");
			for (const variant of spec.variants) {
				const folder = join(directory, recipeDirectory(variant.recipe.canonical));
				mkdirSync(folder, { recursive: true });
				writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifestOf(spec, variant)));
			}
		},
		discard: async (handle) => void runs.delete(handle),
	};
}

const folder = mkdtempSync(join(tmpdir(), "yaqa-bench-"));
const ports: Ports = {
	...scriptedPorts(scriptedWorld(join(folder, "world"))),
	inspectSource: async ({ repo }) => ({
		ok: true,
		facts: {
			repo,
			sha: shaOf(repo),
			architecture: "LlamaForCausalLM",
			parameters: 1000,
			weightBytes: 4000,
			license: null,
			gated: false,
			private: false,
			tags: [],
		},
		told: { tags: [], pipelineTag: null, architectures: ["LlamaForCausalLM"] },
	}),
	fetchSource: async () => ({ ok: true }),
	nameTarget: ({ sourceRepo }) => `quantized/${sourceRepo.replace("/", "-")}`,
	stage: async ({ job }) => ({ ok: true, stagingRepo: `quantized/staging-${job.id}` }),
	fetchStaged: async () => ({ ok: true }),
	removeStaging: async () => {},
	verify: async ({ manifest }) => ({ ok: true, manifest, checks: [] }),
	publish: async ({ targetRepo }) => ({ ok: true, targetRepo, targetSha: shaOf(targetRepo), url: targetRepo }),
	announce: async () => ({ discussion: 1 }),
	reply: async () => ({ replyCommentId: null }),
};

async function allJobs(database: Database): Promise<readonly JobRecord[]> {
	const found: JobRecord[] = [];
	let cursor: string | null = null;
	do {
		const page: Awaited<ReturnType<typeof listJobs>> = await listJobs(database.handle, { cursor, limit: 200 });
		found.push(...page.items);
		cursor = page.next;
	} while (cursor !== null);
	return found;
}

function quantile(sorted: readonly number[], share: number): number {
	return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

function report(found: readonly JobRecord[]) {
	const done = found.filter((job) => job.state === "done");
	const overheads = done
		.map((job) => (job.finishedAt?.getTime() ?? 0) - (job.startedAt?.getTime() ?? 0) - RUN_MILLISECONDS)
		.toSorted((one, other) => one - other);
	const waits = new Map<string, number[]>();
	for (const job of found) {
		const namespace = job.sourceRepo.split("/")[0] ?? "";
		const wait = (job.startedAt?.getTime() ?? Date.now()) - job.createdAt.getTime();
		waits.set(namespace, [...(waits.get(namespace) ?? []), wait]);
	}
	const means = [...waits.values()].map((all) => all.reduce((sum, wait) => sum + wait, 0) / all.length);
	return {
		jobs: found.length,
		duplicateDispatches: [...started.values()].reduce((sum, times) => sum + times - 1, 0),
		lost: jobs - done.length,
		overheadMilliseconds: { p50: quantile(overheads, 0.5), p99: quantile(overheads, 0.99) },
		fairness: Number((Math.max(...means) / Math.max(1, Math.min(...means))).toFixed(3)),
	};
}

const server = process.env["DATABASE_URL"] ?? "postgres://postgres@127.0.0.1:5432/postgres";
const name = `yaqa_bench_${randomBytes(6).toString("hex")}`;
const admin = new Client({ connectionString: server });
await admin.connect();
await admin.query(`create database ${name}`);
const url = new URL(server);
url.pathname = `/${name}`;
const databases: Database[] = [];
const engines: EngineWithRequests[] = [];
let result: ReturnType<typeof report> | null = null;
try {
	for (let replica = 0; replica < replicas; replica++) {
		const dataDirectory = join(folder, String(replica));
		const database = await openDatabase({
			dataDirectory,
			databaseUrl: url.href,
			poolSize: 8,
			clock: systemClock,
			log: silentLog,
		});
		databases.push(database);
		engines.push(
			engineWithRequests({
				database,
				configuration: scriptedConfiguration(dataDirectory, {
					watch: { namespaces: [], recipes: ["gguf:q4_0"] },
					runner: { concurrency: SLOTS },
				}),
				ports,
				runner: waitingRunner(`waiting-${replica}`),
			}),
		);
	}
	const [database] = databases;
	const [engine] = engines;
	if (database === undefined || engine === undefined) throw new Error("There is no replica.");
	for (let job = 0; job < jobs; job++) {
		const namespace = `space-${Math.floor((job * namespaces) / jobs)}`;
		await engine.recordRequest({
			kind: "api",
			sourceRepo: `${namespace}/model-${job}`,
			recipes: [],
			requester: null,
			replyTo: null,
			dedupeKey: `bench:${job}`,
		});
	}
	process.stderr.write(`${jobs} jobs queued\n`);
	const begun = Date.now();
	await Promise.all(engines.map((one) => one.start()));
	for (;;) {
		await new Promise((resolve) => setTimeout(resolve, 2000));
		const found = await allJobs(database);
		const ended = found.filter((job) => isFinished(job.state)).length;
		process.stderr.write(`${((Date.now() - begun) / 1000).toFixed(0)} s: ${ended} of ${jobs}\n`);
		if (ended >= jobs || Date.now() - begun > seconds * 1000) {
			result = report(found);
			break;
		}
	}
} finally {
	await Promise.all(engines.map((one) => one.stop(5000)));
	for (const database of databases) await database.close();
	await admin.query(`drop database if exists ${name} with (force)`);
	await admin.end();
	rmSync(folder, { recursive: true, force: true });
}
process.stdout.write(`${values.json ? JSON.stringify(result) : JSON.stringify(result, null, "\t")}\n`);
process.exitCode = result.lost === 0 && result.duplicateDispatches === 0 ? 0 : 1;
