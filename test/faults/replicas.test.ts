import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Database } from "../../src/db/database.ts";
import { getJob, leaseHolder, listJobEvents, listJobs } from "../../src/db/jobs.ts";
import type { JobState } from "../../src/records/job.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

const MAIN = fileURLToPath(new URL("../support/scripted-bot-main.ts", import.meta.url));
/** What the project promises for a replica that dies. The lease is 15 seconds, as in production. */
const TAKEOVER_SECONDS = 20;

type Replica = {
	readonly process: ChildProcess;
	readonly pid: number;
	readonly started: Promise<void>;
	readonly exit: Promise<number | null>;
	log(): string;
};

function startReplica(own: TestDatabases, repos: readonly string[] = []): Replica {
	const child = spawn(process.execPath, [MAIN, own.dataDirectory, ...repos], {
		env: { PATH: process.env["PATH"], SCRIPTED_BOT_LOG: "warn", ...own.environment },
		stdio: ["ignore", "pipe", "pipe"],
	});
	let log = "";
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		log += text;
	});
	const started = Promise.withResolvers<void>();
	createInterface({ input: child.stdout }).on("line", (line) => {
		if (line === "started") started.resolve();
	});
	const exit = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
	exit.then(() => started.reject(new Error(`The replica ended at once: ${log}`)));
	started.promise.catch(() => undefined);
	const { pid } = child;
	assert.ok(pid !== undefined);
	return { process: child, pid, started: started.promise, exit, log: () => log };
}

await onEveryDatabase((databases, name) => {
	// The embedded database lets one process in: several replicas need PostgreSQL.
	if (name !== "PostgreSQL") return;
	// Side by side: most of their time they wait for a lease to run out.
	describe("two replicas on one PostgreSQL", { concurrency: true, timeout: 180_000 }, () => {
		const replicas = new Set<Replica>();
		after(() => {
			for (const replica of replicas) replica.process.kill("SIGKILL");
		});

		/** Two replicas, one job, held in `state` by a port that takes its time. */
		async function begin(port: string, milliseconds: number, state: JobState) {
			const own = await databases();
			const world = scriptedWorld(worldFolder(own.dataDirectory));
			world.setHead("acme/shared", shaOf("shared"));
			world.setDelay(port, milliseconds);
			const pair = [startReplica(own, ["acme/shared"]), startReplica(own, ["acme/shared"])];
			for (const replica of pair) replicas.add(replica);
			await Promise.all(pair.map((replica) => replica.started));
			const database = await own.open();
			const id = await until("the job", async () => (await listJobs(database.handle)).items[0]?.id ?? null);
			await untilState(database, id, [state]);
			const holder = await until("the step's holder", () => holderOf(database, id, pair));
			const other = pair.find((replica) => replica !== holder);
			assert.ok(other !== undefined);
			return { own, world, database, id, holder, other };
		}

		async function holderOf(database: Database, id: string, pair: readonly Replica[]): Promise<Replica | null> {
			const owner = await leaseHolder(database.handle, id);
			return pair.find((replica) => owner?.startsWith(`${hostname()}:${replica.pid}:`) === true) ?? null;
		}

		async function end(replica: Replica): Promise<void> {
			replica.process.kill("SIGTERM");
			assert.equal(await replica.exit, 0);
			replicas.delete(replica);
		}

		async function holdsOneResult(own: TestDatabases, world: ScriptedWorld, database: Database, id: string) {
			await until("the clean-up", async () => {
				const runs = join(own.dataDirectory, "runs");
				const left = existsSync(runs) ? readdirSync(runs) : [];
				return left.length === 0 && world.stagingRepos().length === 0 ? true : null;
			});
			assert.equal((await listJobs(database.handle)).items.length, 1);
			const job = await getJob(database.handle, id);
			assert.equal(job?.state, "done");
			assert.equal(job.fence, 1, "dispatched once");
			assert.deepEqual(readdirSync(join(own.dataDirectory, "logs")), [`${id}-1.log`], "one run");
			assert.equal(world.calls().filter((one) => one.call === "publish").length, 2, "each repo was written once");
			const events = await listJobEvents(database.handle, id, 0, 1000);
			const states = events.flatMap((event) => {
				const { from, to } = event.body as { from?: string; to?: string };
				return event.kind === "state" && to !== undefined && from !== to ? [to] : [];
			});
			assert.equal(new Set(states).size, states.length, `each state once: ${states.join(", ")}`);
		}

		for (const [state, port] of [
			["dispatching", "fetchSource"],
			["ingesting", "stage"],
		] as const) {
			test(`SIGKILL of the one that is ${state}: the other takes over within ${TAKEOVER_SECONDS} seconds`, async (context) => {
				const { own, world, database, id, holder, other } = await begin(port, 300_000, state);
				world.setDelay(port, 0);
				holder.process.kill("SIGKILL");
				const killedAt = Date.now();
				await holder.exit;
				replicas.delete(holder);
				await until(
					"the other replica to take the step over",
					async () => {
						const job = await getJob(database.handle, id);
						return job !== null && job.state !== state ? true : null;
					},
					TAKEOVER_SECONDS,
				);
				context.diagnostic(`taken over after ${((Date.now() - killedAt) / 1000).toFixed(1)} s`);
				await untilState(database, id, ["done"]);
				await holdsOneResult(own, world, database, id);
				await end(other);
				await database.close();
			});
		}

		test("SIGSTOP past the lease, then SIGCONT: what the sleeper still writes is refused", async () => {
			const { own, world, database, id, holder, other } = await begin("stage", 3000, "ingesting");
			holder.process.kill("SIGSTOP");
			world.setDelay("stage", 0);
			await untilState(database, id, ["done"]);
			await until("the clean-up", async () => (world.stagingRepos().length === 0 ? true : null));
			const before = await getJob(database.handle, id);
			const eventsBefore = await listJobEvents(database.handle, id, 0, 1000);
			holder.process.kill("SIGCONT");
			await until("the sleeper to notice", async () => (holder.log().includes("came too late") ? true : null));
			await holdsOneResult(own, world, database, id);
			assert.deepEqual(await getJob(database.handle, id), before);
			assert.deepEqual(await listJobEvents(database.handle, id, 0, 1000), eventsBefore);
			await Promise.all([end(holder), end(other)]);
			await database.close();
		});
	});
});
