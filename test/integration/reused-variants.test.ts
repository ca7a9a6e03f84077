import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Database } from "../../src/db/database.ts";
import { listJobEvents, listJobs } from "../../src/db/jobs.ts";
import { listPublishedVariants, listVariantsOfJob } from "../../src/db/variants.ts";
import { createEstimator } from "../../src/jobs/estimate/estimator.ts";
import type { Hardware } from "../../src/jobs/estimate/hardware.ts";
import type { JobRecord } from "../../src/records/job.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { recipeOf } from "../support/recipe-of.ts";
import {
	push,
	type ScriptedBot,
	scriptedBot,
	scriptedConfiguration,
	until,
	untilState,
	worldFolder,
} from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

await onEveryDatabase((databases, name) => {
	describe(`a commit that leaves the weights alone, on ${name}`, { concurrency: false }, () => {
		let own: TestDatabases;
		let database: Database;
		let world: ScriptedWorld;
		let bot: ScriptedBot;

		/** Pushes a commit and waits for `jobs` jobs of it. */
		async function pushes(commit: string, content: { weights: string; companions: string }, jobs: number) {
			const sha = shaOf(commit);
			world.setContent(sha, content);
			world.setHead("acme/model", sha);
			await bot.engine.storeDelivery({
				source: "hub",
				dedupeKey: commit,
				receivedAt: new Date(),
				body: push("acme/model"),
			});
			return await until(`the jobs of ${commit}`, async () => {
				const found = (await jobsOf()).filter((job) => job.sourceSha === sha);
				return found.length >= jobs ? found : null;
			});
		}
		const jobsOf = async (): Promise<readonly JobRecord[]> =>
			(await listJobs(database.handle, { sourceRepo: "acme/model" })).items;
		const statesOf = async (job: string) =>
			(await listJobEvents(database.handle, job, 0, 200)).flatMap(({ body }) => {
				const { from, to } = body as { from?: string; to?: string };
				return to !== undefined && from !== to ? [to] : [];
			});
		const countOf = (call: string) => world.calls().filter((one) => one.call === call).length;

		before(async () => {
			own = await databases();
			database = await own.open();
			world = scriptedWorld(worldFolder(own.dataDirectory));
			bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
		});
		after(async () => {
			await bot.engine.stop();
			await database.close();
		});

		test("only the card changed: published anew without a run", async () => {
			const [first] = await pushes("one", { weights: "w1", companions: "t1" }, 1);
			await untilState(database, first?.id ?? "", ["done"]);
			const stagings = countOf("stage");

			const [second] = await pushes("two", { weights: "w1", companions: "t1" }, 1);
			const done = await untilState(database, second?.id ?? "", ["done"]);
			assert.equal(done.fence, 0, "no run was started");
			assert.equal(countOf("stage"), stagings);
			assert.equal(countOf("republish"), 2);
			assert.deepEqual(await statesOf(done.id), ["planned", "publishing", "announcing", "done"]);
			const { items } = await listPublishedVariants(database.handle, { base: "acme/model" });
			assert.deepEqual(items.map((variant) => `${variant.recipe} ${variant.sourceSha === shaOf("two")}`).toSorted(), [
				"gguf:q4_0 true",
				"w4a16 true",
			]);
			assert.ok(items.every((variant) => variant.manifest?.source.revision === shaOf("two")));
		});

		test("the tokenizer changed: files beside it get it, a GGUF file, which carries it, is made anew", async () => {
			const jobs = await pushes("three", { weights: "w1", companions: "t2" }, 2);
			const recipes: string[] = [];
			for (const job of jobs) {
				const done = await untilState(database, job.id, ["done"]);
				const variants = await listVariantsOfJob(database.handle, job.id);
				recipes.push(`${variants.map((variant) => variant.recipe).join(" ")} in ${done.fence} runs`);
				if (done.fence === 0) continue;
				// Whether the new tokenizer gives the same tokens is the run's to see.
				assert.ok(variants.every(({ manifest }) => manifest?.sketch.reused === true));
			}
			assert.deepEqual(recipes.toSorted(), ["gguf:q4_0 in 1 runs", "w4a16 in 0 runs"]);
		});

		test("somebody who asks for it after such a commit gets it without a run, but for a commit they named", async () => {
			const sha = shaOf("three and a half");
			world.setContent(sha, { weights: "w1", companions: "t2" });
			world.setHead("acme/model", sha);
			const ask = async (dedupeKey: string, revision: { readonly revision?: string }) => {
				const recipes = [recipeOf("w4a16")];
				const asked = { kind: "comment", sourceRepo: "acme/model", recipes, requester: "x", replyTo: null } as const;
				const outcome = await bot.engine.recordRequest({ ...asked, dedupeKey, ...revision });
				return outcome.kind === "planned" ? outcome.job : null;
			};
			const named = shaOf("an old one");
			world.setContent(named, { weights: "w1", companions: "t2" });
			const old = await ask("named", { revision: named });
			assert.equal((await untilState(database, old?.id ?? "", ["done"])).fence, 1);
			const job = await ask("unnamed", {});
			assert.equal((await untilState(database, job?.id ?? "", ["done"])).fence, 0);
		});

		test("what still runs for these weights is waited for, not ended and not run twice", async () => {
			world.setDelay("fetchSource", 1500);
			const [running] = await pushes("four", { weights: "w2", companions: "t2" }, 1);
			const [waiting] = await pushes("five", { weights: "w2", companions: "t2" }, 1);
			const held = await untilState(database, waiting?.id ?? "", ["waiting"]);
			assert.match(held.statusText, /Waits for the run on commit/);
			await untilState(database, running?.id ?? "", ["done"]);
			// It would look again by itself a little later.
			const now = new Date();
			await database.handle.updateTable("jobs").set({ next_step_at: now }).where("id", "=", held.id).execute();
			const done = await untilState(database, held.id, ["done"]);
			assert.equal(done.fence, 0);
			world.setDelay("fetchSource", 0);
		});

		test("a repo that vanishes between plan and publication: a run makes its variant, the others are taken over", async () => {
			const before = countOf("republish");
			world.setDelay("republish", 700);
			const [job] = await pushes("five and a half", { weights: "w2", companions: "t2" }, 1);
			await untilState(database, job?.id ?? "", ["publishing"]);
			world.deletePublished("quantized/model-YAQA-GGUF");
			const done = await untilState(database, job?.id ?? "", ["done"]);
			world.setDelay("republish", 0);
			assert.equal(done.fence, 1);
			assert.equal(
				done.remark,
				"quantized/model-YAQA-GGUF was no longer there. Nothing could be taken over, hence a run for gguf:q4_0.",
			);
			const carried = world.calls().filter(({ call }) => call === "republish");
			assert.deepEqual(
				carried.slice(before).map(({ detail }) => detail),
				["quantized/model-YAQA-w4a16 w4a16"],
			);
			const running = ["dispatching", "running", "ingesting", "verifying", "publishing", "announcing", "done"];
			const states = (await statesOf(done.id)).filter((state) => state !== "waiting");
			assert.deepEqual(states, ["planned", "publishing", "planned", ...running]);
			assert.ok(world.published().includes("quantized__model-YAQA-GGUF"));
			const { items } = await listPublishedVariants(database.handle, { base: "acme/model" });
			assert.deepEqual(
				items.map((variant) => `${variant.recipe} ${variant.sourceSha === shaOf("five and a half")}`).toSorted(),
				["gguf:q4_0 true", "w4a16 false", "w4a16 true"],
				"what vanished is no longer in the catalogue; the commit that somebody named keeps its own repo",
			);
		});

		test("the run that is needed after all counts against the ceilings like any other", async () => {
			await bot.engine.stop();
			const overrides = { budget: { approvalUsd: 0.01 } };
			const configuration = scriptedConfiguration(own.dataDirectory, overrides);
			const machine: Hardware = {
				runner: "hf-jobs",
				flavor: "l4x1",
				title: "an L4",
				cores: 8,
				memoryBytes: 64e9,
				accelerator: { model: "L4", count: 1, bytesEach: 24e9 },
				microUsdPerMinute: 1e6,
			};
			const estimator = async () => createEstimator(configuration, [machine], []);
			bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory, estimator, overrides });
			await bot.engine.start();
			world.deletePublished("quantized/model-YAQA-w4a16");
			const [job] = await pushes("five and three quarters", { weights: "w2", companions: "t2" }, 1);
			const held = await untilState(database, job?.id ?? "", ["waiting"]);
			assert.match(held.statusText, /Waits for approval: it may cost/);
			assert.match(held.planText ?? "", /L4/);
			assert.ok((await bot.engine.approveJob(held.id)).ok);
			assert.equal((await untilState(database, held.id, ["done"])).fence, 1);
			await bot.engine.stop();
			bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
		});

		test("what may not be taken over fails with the reason, and a retry makes it by a run", async () => {
			world.refuseRepublishing();
			const [job] = await pushes("six", { weights: "w2", companions: "t2" }, 1);
			const failed = await untilState(database, job?.id ?? "", ["failed"]);
			assert.equal(failed.refusal?.code, "repo-not-found");
			assert.ok((await bot.engine.retryJob(failed.id)).ok);
			assert.equal((await untilState(database, failed.id, ["done"])).fence, 1);
		});

		test("cards name what is published beside them, and what stays from an earlier commit is marked", async () => {
			const cards = () => world.calls().filter((one) => one.call === "refresh-card");
			const before = cards().length;
			const asked = await bot.engine.recordRequest({
				kind: "api",
				sourceRepo: "acme/model",
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: "asked",
			});
			assert.equal(asked.kind, "published", "a request finds what was taken over");
			const extra = await bot.engine.recordRequest({
				kind: "api",
				sourceRepo: "acme/model",
				recipes: [recipeOf("w8a16")],
				requester: null,
				replyTo: null,
				dedupeKey: "extra",
			});
			assert.equal(extra.kind, "planned");
			if (extra.kind === "planned") await untilState(database, extra.job.id, ["done"]);
			const [job] = await pushes("seven", { weights: "w3", companions: "t2" }, 1);
			await untilState(database, job?.id ?? "", ["done"]);
			const [beside, other, ...marked] = cards()
				.slice(before)
				.map((one) => one.detail);
			assert.deepEqual(
				[beside?.split(" ")[0], other?.split(" ")[0]].toSorted(),
				["quantized/model-YAQA-GGUF", "quantized/model-YAQA-w4a16"],
				"the cards of what the same commit has already",
			);
			assert.deepEqual(marked, [`quantized/model-YAQA-w8a16 ${shaOf("seven").slice(0, 8)}`]);
		});
	});
});
