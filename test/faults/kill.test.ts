import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { processesBelow } from "../../demo/end-runs.ts";
import { followJob, getJobPage, type Job, jobsOf, waitFor } from "../../demo/follow-job.ts";
import { venvPython } from "../../demo/stack.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { startTinyStack, type TinyStack } from "../support/tiny-stack.ts";

const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";
const SEED = 20_260_822;
const REPO = "demo/killed";
const MOST_PUSHES = 8;

/** Mulberry32: the same moments in every run. */
function seededRandom(seed: number): () => number {
	let state = seed;
	return () => {
		state = (state + 0x6d2b79f5) | 0;
		let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
	};
}

function numbered(config: string, push: number): Blob {
	return new Blob([JSON.stringify({ ...JSON.parse(config), push_of_the_test: push })]);
}

/** When to kill: so long after the job was first seen in (or beyond) a state. */
type Moment = { readonly state: string; readonly waitMs: number };

const ORDER = ["planned", "dispatching", "running", "ingesting", "verifying", "publishing", "announcing", "done"];

function hasReached(state: string, wanted: string): boolean {
	return ORDER.indexOf(state) >= ORDER.indexOf(wanted);
}

await onEveryDatabase((databases, database) => {
	describe(`SIGKILL on ${database}`, { skip, timeout: 800_000 }, () => {
		let tiny: TinyStack;
		before(async () => {
			const { databaseUrl } = await databases();
			tiny = await startTinyStack({ databaseUrl, configuration: { sweep: { cron: "*/3 * * * * *" } } });
			await tiny.stack.startBot();
			await tiny.stack.webhookIsSetUp();
		});
		after(() => tiny.close());

		async function newestJob(count: number): Promise<Job> {
			return await waitFor(
				`Job ${count}`,
				async () => {
					const jobs = await jobsOf(tiny.stack.botUrl, REPO);
					return jobs.length >= count ? (jobs[0] ?? null) : null;
				},
				{ seconds: 60 },
			);
		}

		test("of the bot at ten random moments leaves the same repos and no duplicates", async (context) => {
			const random = seededRandom(SEED);
			const moments: Moment[] = [
				{ state: "planned", waitMs: random() * 300 },
				{ state: "running", waitMs: random() * 1000 },
				{ state: "running", waitMs: random() * 2000 },
				{ state: "running", waitMs: random() * 3000 },
				{ state: "ingesting", waitMs: random() * 300 },
				{ state: "verifying", waitMs: random() * 300 },
				{ state: "publishing", waitMs: random() * 100 },
				{ state: "publishing", waitMs: random() * 400 },
				{ state: "announcing", waitMs: random() * 100 },
				{ state: "announcing", waitMs: random() * 300 },
			];
			const { stack } = tiny;
			// The last states of a tiny job are over within a poll otherwise, and the kill would find it done.
			stack.hub.faults.set({ routes: [{ path: "^/api/", kind: "slow", delayMilliseconds: 150, times: 100_000 }] });
			const config = await readFile(join(tiny.model, "config.json"), "utf8");
			const hit: string[] = [];
			let pushes = 0;
			let missed = 0;
			let job: Job | null = null;
			while (hit.length < moments.length) {
				if (job === null) {
					// A job that is over cannot be interrupted: what is left of the moments strikes the next one.
					assert.ok(pushes < MOST_PUSHES, `${pushes} pushes took only ${hit.length} kills: ${hit.join(", ")}`);
					// A push that leaves the model alone starts no run: a field that nothing reads makes each another model.
					const files = (await tiny.modelFiles()).map((file) =>
						file.path === "config.json" ? { ...file, content: numbered(config, pushes) } : file,
					);
					await tiny.push(REPO, files);
					pushes++;
					job = await newestJob(pushes);
				}
				const { id } = job;
				const moment = moments[hit.length];
				assert.ok(moment);
				const seen = await waitFor(
					`State ${moment.state}`,
					async () => {
						const { state } = (await getJobPage(stack.botUrl, id)).job;
						assert.ok(ORDER.includes(state), `the job is ${state}`);
						return hasReached(state, moment.state) ? state : null;
					},
					{ seconds: 300 },
				);
				await sleep(moment.waitMs / 2 ** missed);
				const before = seen === "done" ? seen : (await getJobPage(stack.botUrl, id)).job.state;
				if (before === "done") {
					job = null;
					missed++;
					continue;
				}
				await stack.endBot("SIGKILL");
				hit.push(before);
				missed = 0;
				await stack.startBot();
			}
			context.diagnostic(`killed while the job was ${hit.join(", ")}; ${pushes} pushes`);
			stack.hub.faults.set({ routes: [] });
			assert.ok(job);
			const end = await followJob({ botUrl: stack.botUrl, id: job.id, onEvent: () => {}, patienceSeconds: 300 });
			assert.equal(end.job.state, "done", JSON.stringify(end.job.refusal));

			const jobs = await jobsOf(stack.botUrl, REPO);
			assert.equal(jobs.length, pushes, "one job a push");
			assert.equal(new Set(jobs.map((one) => one.sourceSha)).size, pushes);
			assert.deepEqual(await tiny.botRepos(), ["yaqa-bot/killed-YAQA-GGUF", "yaqa-bot/killed-YAQA-W4A16"]);
			for (const repo of await tiny.botRepos()) {
				const commits = (await tiny.commitsOf(repo)).filter((title) => !/^initial commit$/i.test(title));
				assert.equal(commits.length, jobs.filter((one) => one.state === "done").length, commits.join(" | "));
				const files = await tiny.filesOf(repo);
				assert.equal(new Set(files).size, files.length);
			}
			const discussions = await tiny.discussionsOf(REPO);
			assert.equal(discussions.length, 1, "one status discussion");
			assert.equal(discussions[0]?.length, 1, "one comment in it, edited");
		});

		test("of the run gives another attempt, which publishes", async () => {
			const { stack } = tiny;
			const repo = "demo/shot";
			await tiny.push(repo, await tiny.modelFiles());
			const job = await waitFor("A job", async () => (await jobsOf(stack.botUrl, repo)).at(0) ?? null, { seconds: 90 });
			const pids = await waitFor(
				"The run's process",
				async () => {
					const state = (await getJobPage(stack.botUrl, job.id)).job.state;
					const found = await processesBelow(join(stack.dataDirectory, "bot", "runs"));
					return state === "running" && found.length > 0 ? found : null;
				},
				{ seconds: 60 },
			);
			for (const pid of pids) process.kill(pid, "SIGKILL");
			const end = await followJob({ botUrl: stack.botUrl, id: job.id, onEvent: () => {}, patienceSeconds: 300 });
			assert.equal(end.job.state, "done", JSON.stringify(end.job.refusal));
			assert.ok(end.job.fence > 1, `attempt ${end.job.fence}`);
			assert.deepEqual(
				(await tiny.botRepos()).filter((made) => made.includes("shot")),
				["yaqa-bot/shot-YAQA-GGUF", "yaqa-bot/shot-YAQA-W4A16"],
			);
		});

		test("leaves no run behind", async () => {
			await waitFor(
				"The end of every run",
				async () => ((await processesBelow(join(tiny.stack.dataDirectory, "bot", "runs"))).length === 0 ? true : null),
				{ seconds: 90 },
			);
		});
	});
});
