import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { followJob, jobsOf, waitFor } from "../../demo/follow-job.ts";
import { venvPython } from "../../demo/stack.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { startTinyStack, type TinyStack } from "../support/tiny-stack.ts";

const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";

await onEveryDatabase((databases, database) => {
	describe(`deliveries on ${database}`, { skip, timeout: 800_000 }, () => {
		let tiny: TinyStack;
		before(async () => {
			const { databaseUrl } = await databases();
			tiny = await startTinyStack({ databaseUrl, configuration: { sweep: { cron: "*/3 * * * * *" } } });
			await tiny.stack.startBot();
			await tiny.stack.webhookIsSetUp();
		});
		after(() => tiny.close());

		/** Waits for the repo's one job to end, and a little for a second one that must not come. */
		async function theOneJob(repo: string) {
			const job = await waitFor("A job", async () => (await jobsOf(tiny.stack.botUrl, repo)).at(0) ?? null, {
				seconds: 60,
			});
			const end = await followJob({
				botUrl: tiny.stack.botUrl,
				id: job.id,
				onEvent: () => {},
				patienceSeconds: 300,
			});
			assert.equal(end.job.state, "done", JSON.stringify(end.job.refusal));
			await sleep(4000);
			assert.equal((await jobsOf(tiny.stack.botUrl, repo)).length, 1);
			return end;
		}

		async function assertOneSetOfRepos(name: string): Promise<void> {
			const made = (await tiny.botRepos()).filter((repo) => repo.includes(name));
			assert.deepEqual(made, [`yaqa-bot/${name}-YAQA-GGUF`, `yaqa-bot/${name}-YAQA-W4A16`]);
			for (const repo of made) {
				const commits = await tiny.commitsOf(repo);
				const published = commits.filter((title) => !/^initial commit$/i.test(title));
				assert.equal(published.length, 1, `${repo}: ${commits.join(" | ")}`);
			}
			assert.equal((await tiny.discussionsOf(`demo/${name}`)).length, 1);
		}

		test("a push that is delivered twice gives one job and one set of repos", async () => {
			tiny.stack.hub.faults.set({ duplicateWebhooks: 10 });
			await tiny.push("demo/twice", await tiny.modelFiles());
			await theOneJob("demo/twice");
			await assertOneSetOfRepos("twice");
			tiny.stack.hub.faults.clear();
		});

		test("a push whose webhook is lost is found by the sweep, once", async () => {
			tiny.stack.hub.faults.set({ dropWebhooks: 100 });
			await tiny.push("demo/unheard", await tiny.modelFiles());
			await theOneJob("demo/unheard");
			tiny.stack.hub.faults.clear();
			await assertOneSetOfRepos("unheard");
		});

		test("a push while the bot is down is found after its start", async () => {
			await tiny.stack.endBot("SIGTERM");
			await tiny.push("demo/asleep", await tiny.modelFiles());
			await tiny.stack.startBot();
			await theOneJob("demo/asleep");
			await assertOneSetOfRepos("asleep");
		});
	});
});
