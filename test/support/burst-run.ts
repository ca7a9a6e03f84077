import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/clock.ts";
import { ConfigurationFile } from "../../src/config/schema.ts";
import type { Database } from "../../src/db/database.ts";
import { listDueDeliveries } from "../../src/db/deliveries.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { listVariantsOfJob } from "../../src/db/variants.ts";
import { silentLog } from "../../src/log.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { createApp } from "../../src/web/create-app.ts";
import { databaseData } from "../../src/web/database-data.ts";
import { createMetrics } from "../../src/web/metrics.ts";
import { aboutOf } from "../../src/web/views/about-page.ts";
import { type EngineWithRequests, engineWithRequests } from "./engine-with-requests.ts";
import { push, scriptedConfiguration } from "./scripted-bot.ts";
import { type ScriptedWorld, scriptedPorts, scriptedWorld, shaOf } from "./scripted-ports.ts";

type BurstReport = {
	readonly deliveries: number;
	/** Repos that the clean run has a job for and the burst has not, after one sweep. */
	readonly lost: number;
	/** Jobs beyond one for a commit. */
	readonly duplicateJobs: number;
	readonly acknowledgementMilliseconds: { readonly p50: number; readonly p99: number };
};

const SECRET = "a secret of the burst";
const PUSHES_A_REPO = 4;
const AT_ONCE = 20;

/** Takes a run and keeps it for ever: what is measured here ends where runs begin. */
function heldRunner(name: string): Runner {
	return {
		name,
		isRemote: false,
		setAside: async () => undefined,
		listHeld: async () => [],
		dispatch: async (spec) => ({ handle: `${spec.job}-${spec.fence}` }),
		find: async () => null,
		observe: async () => ({ status: "running" }),
		events: async () => [],
		cancel: async () => {},
		collect: async () => {},
		discard: async () => {},
	};
}

type Replica = { readonly engine: EngineWithRequests; readonly url: string; close(): Promise<void> };

async function startReplica(database: Database, world: ScriptedWorld, folder: string, name: string): Promise<Replica> {
	const configuration = scriptedConfiguration(folder);
	const engine = engineWithRequests({
		database,
		configuration,
		ports: scriptedPorts(world),
		runner: heldRunner(name),
	});
	const site = createApp({
		about: aboutOf(ConfigurationFile.parse({}), false),
		data: databaseData({
			audience: "everybody",
			database,
			clock: systemClock,
		}),
		storeDelivery: (delivery) => engine.storeDelivery(delivery),
		webhookSecrets: [SECRET],
		progress: { isAllowed: () => false, store: async () => false },
		gitHubWebhookSecrets: [],
		maxBodyBytes: 1_048_576,
		hubUrl: "http://127.0.0.1:1",
		botName: "yaqa-bot",
		version: "bench",
		checks: [],
		metrics: createMetrics(),
		clock: systemClock,
		log: silentLog,
	});
	const server = createServer(site.app).listen(0, "127.0.0.1");
	// Between two plays of a burst on a busy machine a connection may rest for long.
	server.keepAliveTimeout = 120_000;
	await once(server, "listening");
	const address = server.address();
	if (address === null || typeof address === "string") throw new Error("No address.");
	await engine.start();
	return {
		engine,
		url: `http://127.0.0.1:${address.port}/webhooks/hub`,
		async close() {
			site.close();
			server.close();
			server.closeAllConnections();
			await engine.stop(5000);
		},
	};
}

/** Numbers that are the same in every run. */
function numbers(seed: number): () => number {
	let state = seed;
	return () => {
		state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
		return (state >>> 8) / 2 ** 24;
	};
}

type Delivery = { readonly id: string; readonly repo: string };

function shuffled(deliveries: readonly Delivery[], random: () => number): readonly Delivery[] {
	return deliveries
		.map((delivery) => ({ delivery, at: random() }))
		.toSorted((one, other) => one.at - other.at)
		.map(({ delivery }) => delivery);
}

/** Half of them never arrive, three of ten of the others arrive twice, all in any order. */
function disturbed(deliveries: readonly Delivery[]): readonly Delivery[] {
	const random = numbers(7);
	const arrived = deliveries.filter(() => random() >= 0.5);
	return shuffled([...arrived, ...arrived.filter(() => random() < 0.3)], random);
}

async function send(replicas: readonly Replica[], deliveries: readonly Delivery[]): Promise<number[]> {
	const milliseconds: number[] = [];
	let next = 0;
	async function lane(): Promise<void> {
		for (;;) {
			const place = next++;
			const delivery = deliveries[place];
			const replica = replicas[place % replicas.length];
			if (delivery === undefined || replica === undefined) return;
			const begun = performance.now();
			const response = await fetch(replica.url, {
				method: "POST",
				headers: { "content-type": "application/json", "x-webhook-secret": SECRET, "webhook-id": delivery.id },
				body: JSON.stringify(push(delivery.repo)),
			});
			await response.arrayBuffer();
			if (!response.ok) throw new Error(`A delivery was answered ${response.status}.`);
			milliseconds.push(performance.now() - begun);
		}
	}
	await Promise.all(Array.from({ length: AT_ONCE }, lane));
	return milliseconds;
}

async function untilSettled(database: Database): Promise<void> {
	const farAhead = new Date(Date.now() + 86_400_000);
	for (;;) {
		if ((await listDueDeliveries(database.handle, farAhead, 1)).length === 0) {
			const row = await database.handle
				.selectFrom("deliveries")
				.select(({ fn }) => fn.countAll<string>().as("count"))
				.where("outcome", "=", "pending")
				.executeTakeFirstOrThrow();
			if (Number(row.count) === 0) return;
		}
		await new Promise((resolve) => setTimeout(resolve, 100));
	}
}

/** What the bot means to do: one line a job, with its repo, commit and recipes. */
async function stateOf(database: Database): Promise<readonly string[]> {
	const lines: string[] = [];
	let cursor: string | null = null;
	do {
		const page = await listJobs(database.handle, { cursor, limit: 100 });
		for (const job of page.items) {
			const variants = await listVariantsOfJob(database.handle, job.id);
			const recipes = variants.map((variant) => variant.recipe).toSorted();
			lines.push(`${job.sourceRepo} ${job.sourceSha} ${recipes.join(" ")}`);
		}
		cursor = page.next;
	} while (cursor !== null);
	return lines.toSorted();
}

/** Runs `deliveries` through two replicas on an empty database; `disturb`: with losses, duplicates and disorder. */
async function play(
	open: () => Promise<Database>,
	options: { readonly deliveries: number; readonly disturb: boolean },
): Promise<{ readonly state: readonly string[]; readonly milliseconds: readonly number[] }> {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-burst-"));
	const world = scriptedWorld(join(folder, "world"));
	const repos = Math.ceil(options.deliveries / PUSHES_A_REPO);
	const all = Array.from({ length: options.deliveries }, (_, index) => ({
		id: randomUUID(),
		repo: `acme/model-${index % repos}`,
	}));
	const database = await open();
	const replicas = [
		await startReplica(database, world, folder, "bench-1"),
		await startReplica(database, world, folder, "bench-2"),
	];
	try {
		// The namespace is watched before the pushes: what is there when it is first seen counts as known.
		await replicas[0]?.engine.sweepNow();
		for (let index = 0; index < repos; index++) world.setHead(`acme/model-${index}`, shaOf(`model ${index}`));
		const milliseconds = await send(replicas, options.disturb ? disturbed(all) : all);
		await untilSettled(database);
		if (options.disturb) await replicas[1]?.engine.sweepNow();
		return { state: await stateOf(database), milliseconds };
	} finally {
		for (const replica of replicas) await replica.close();
		await database.close();
		rmSync(folder, { recursive: true, force: true });
	}
}

function quantile(sorted: readonly number[], share: number): number {
	const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
	return Math.round(value * 10) / 10;
}

/** A burst with losses, compared with the same pushes when each arrives once and in order. */
export async function runBurst(open: () => Promise<Database>, deliveries: number): Promise<BurstReport> {
	const clean = await play(open, { deliveries, disturb: false });
	const burst = await play(open, { deliveries, disturb: true });
	const times = burst.milliseconds.toSorted((one, other) => one - other);
	const commits = new Set(burst.state.map((line) => line.split(" ").slice(0, 2).join(" ")));
	const found = new Set(burst.state);
	return {
		deliveries,
		lost: clean.state.filter((line) => !found.has(line)).length,
		duplicateJobs: burst.state.length - commits.size,
		acknowledgementMilliseconds: { p50: quantile(times, 0.5), p99: quantile(times, 0.99) },
	};
}
