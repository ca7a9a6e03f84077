import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { getJob, listJobs } from "../../src/db/jobs.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { until, worldFolder } from "../support/scripted-bot.ts";
import { scriptedWorld, shaOf } from "../support/scripted-ports.ts";

const MAIN = fileURLToPath(new URL("../support/scripted-bot-main.ts", import.meta.url));
/** Starting the embedded database anew takes seconds; the demo's fault test kills more often. */
const KILLS = 4;
const SEED = 7;

function* randomNumbers(seed: number): Generator<number, never> {
	let state = seed;
	for (;;) {
		state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
		yield state / 2_147_483_648;
	}
}

type Bot = { readonly process: ChildProcess; readonly started: Promise<void>; readonly exit: Promise<number | null> };

function startBot(own: TestDatabases, repos: readonly string[]): Bot {
	const child = spawn(process.execPath, [MAIN, own.dataDirectory, ...repos], {
		env: { PATH: process.env["PATH"], ...own.environment },
		stdio: ["ignore", "pipe", "inherit"],
	});
	const started = Promise.withResolvers<void>();
	createInterface({ input: child.stdout }).on("line", (line) => {
		if (line === "started") started.resolve();
	});
	const exit = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
	exit.then(() => started.resolve());
	return { process: child, started: started.promise, exit };
}

await onEveryDatabase((databases, name) => {
	describe(`a bot that is killed, on ${name}`, () => {
		test(`goes on after ${KILLS} SIGKILLs: one job, one run, every repo once`, async (t) => {
			const own = await databases();
			const world = scriptedWorld(worldFolder(own.dataDirectory));
			world.setHead("acme/victim", shaOf("victim"));
			world.setBehaviour("acme/victim", { steps: 40, delayMs: 100 });
			for (const call of ["fetchSource", "stage", "fetchStaged", "verify", "publish", "afterPublish", "announce"]) {
				world.setDelay(call, 150);
			}
			const random = randomNumbers(SEED);
			for (let kill = 0; kill < KILLS; kill++) {
				const bot = startBot(own, ["acme/victim"]);
				t.after(() => bot.process.kill("SIGKILL"));
				await bot.started;
				await new Promise((resolve) => setTimeout(resolve, 100 + random.next().value * 900));
				bot.process.kill("SIGKILL");
				await bot.exit;
			}
			const last = startBot(own, ["acme/victim"]);
			t.after(() => last.process.kill("SIGKILL"));
			await last.started;
			await until(
				"the job to be announced and cleaned up",
				async () => {
					const calls = world.calls();
					const isDone = calls.some((one) => one.call === "announce" && one.detail.startsWith("acme/victim done"));
					const runs = join(own.dataDirectory, "runs");
					const isClean = !existsSync(runs) || readdirSync(runs).length === 0;
					return isDone && isClean && world.stagingRepos().length === 0 ? true : null;
				},
				60,
			);
			last.process.kill("SIGTERM");
			assert.equal(await last.exit, 0, "a graceful stop exits with 0");

			const database = await own.open();
			const { items: jobs } = await listJobs(database.handle);
			assert.equal(jobs.length, 1);
			const job = await getJob(database.handle, jobs[0]?.id ?? "");
			assert.equal(job?.state, "done");
			assert.equal(job?.fence, 1, "the run outlived its bots and was adopted each time");
			assert.deepEqual(world.published(), ["quantized__victim-YAQA-GGUF", "quantized__victim-YAQA-w4a16"]);
			const publications = world.calls().filter((one) => one.call === "publish");
			assert.equal(publications.length, 2, "each repo was written once");
			await database.close();
		});
	});
});
