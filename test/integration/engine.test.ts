import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { ConfigurationInput } from "../../src/config/schema.ts";
import type { Database } from "../../src/db/database.ts";
import { getDelivery, listDeliveries } from "../../src/db/deliveries.ts";
import { getJob, listJobEvents, listJobs } from "../../src/db/jobs.ts";
import { listPublishedVariants, listVariantsOfJob } from "../../src/db/variants.ts";
import { createEstimator } from "../../src/jobs/estimate/estimator.ts";
import type { Hardware } from "../../src/jobs/estimate/hardware.ts";
import { parsedRecipe } from "../../src/protocol/job-spec.ts";
import { listGroup } from "../../src/runners/process-group.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { type EngineWithRequests, engineWithRequests } from "../support/engine-with-requests.ts";
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
import { type ScriptedWorld, scriptedPorts, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

await onEveryDatabase((databases, name) => {
	describe(`engine on ${name}`, { concurrency: false }, () => {
		let own: TestDatabases;
		let database: Database;
		let world: ScriptedWorld;
		let bot: ScriptedBot;

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

		test("a push delivered five times at once becomes one job and one set of repos", async () => {
			world.setHead("acme/one", shaOf("one"));
			const stored = await Promise.all(
				Array.from({ length: 5 }, () =>
					bot.engine.storeDelivery({
						source: "hub",
						dedupeKey: "same",
						receivedAt: new Date(),
						body: push("acme/one"),
					}),
				),
			);
			assert.equal(stored.filter((one) => !one.duplicate).length, 1);
			assert.equal(new Set(stored.map((one) => one.id)).size, 1);
			// The same push told of by other deliveries: a tag and a move have ids of their own.
			for (const key of ["other", "third"]) {
				await bot.engine.storeDelivery({
					source: "hub",
					dedupeKey: key,
					receivedAt: new Date(),
					body: push("acme/one"),
				});
			}
			await until("every delivery to be settled", async () => {
				const { items } = await listDeliveries(database.handle);
				return items.length === 3 && items.every((one) => one.outcome === "accepted") ? true : null;
			});
			const { items: jobs } = await listJobs(database.handle);
			assert.equal(jobs.length, 1);
			const job = await untilState(database, jobs[0]?.id ?? "", ["done"]);
			assert.equal(job.fence, 1);
			assert.deepEqual(world.published(), ["quantized__one-YAQA-GGUF", "quantized__one-YAQA-w4a16"]);
			assert.equal(world.calls().filter((one) => one.call === "publish").length, 2);
			assert.equal(world.calls().filter((one) => one.call === "open-discussion").length, 1);
		});

		test("a finished job's history is numbered without gaps and ends with done", async () => {
			const [job] = (await listJobs(database.handle)).items;
			const events = await listJobEvents(database.handle, job?.id ?? "", 0, 1000);
			assert.deepEqual(
				events.map((event) => event.sequence),
				events.map((_, index) => index + 1),
			);
			const states = events.flatMap((event) => {
				const { from, to } = event.body as { from?: string; to?: string };
				return event.kind === "state" && to !== undefined && from !== to ? [to] : [];
			});
			assert.deepEqual(states, [
				"planned",
				"dispatching",
				"running",
				"ingesting",
				"verifying",
				"publishing",
				"announcing",
				"done",
			]);
			const runner = events.filter((event) => event.kind === "runner");
			assert.equal(runner.length, 7);
			const after = await listJobEvents(database.handle, job?.id ?? "", 3, 2);
			assert.deepEqual(
				after.map((event) => event.sequence),
				[4, 5],
			);
		});

		test("a finished job leaves no run, no staging and no downloads behind", async () => {
			const [job] = (await listJobs(database.handle)).items;
			await until("the clean-up", async () => {
				const left = readdirSync(join(own.dataDirectory, "runs"));
				return left.length === 0 && world.stagingRepos().length === 0 ? true : null;
			});
			assert.equal(existsSync(join(own.dataDirectory, "work", `${job?.id}-${job?.fence}`)), false);
		});

		test("what is published already is answered without a job", async () => {
			const outcome = await bot.engine.recordRequest({
				kind: "api",
				sourceRepo: "acme/one",
				recipes: [recipeOf("w4a16")],
				requester: "someone",
				replyTo: null,
				dedupeKey: "api:1",
			});
			assert.equal(outcome.kind, "published");
			assert.equal((await listJobs(database.handle)).items.length, 1);
		});

		test("another recipe of the same commit gets a job of its own and the stored sketch", async () => {
			const outcome = await bot.engine.recordRequest({
				kind: "comment",
				sourceRepo: "acme/one",
				recipes: [recipeOf("gguf:q8_0")],
				requester: "someone",
				replyTo: { discussion: 4, commentId: "c1", replyCommentId: null },
				dedupeKey: "comment:1",
			});
			assert.ok(outcome.kind === "planned" && outcome.created);
			await untilState(database, outcome.job.id, ["done"]);
			const [variant] = await listVariantsOfJob(database.handle, outcome.job.id);
			assert.equal(variant?.manifest?.sketch.reused, true);
			assert.equal(world.calls().filter((one) => one.call === "post-reply").length, 1);
			assert.ok(world.calls().some((one) => one.call === "edit-reply" && one.detail === "done 1"));
		});

		test("twenty requests at once for one new commit share one job", async () => {
			world.setHead("acme/two", shaOf("two"));
			const outcomes = await Promise.all(
				Array.from({ length: 20 }, (_, index) =>
					bot.engine.recordRequest({
						kind: "api",
						sourceRepo: "acme/two",
						recipes: [recipeOf(index % 2 === 0 ? "w4a16" : "onnx:q4")],
						requester: null,
						replyTo: null,
						dedupeKey: `burst:${index}`,
					}),
				),
			);
			const ids = outcomes.map((outcome) => (outcome.kind === "planned" ? outcome.job.id : "none"));
			const variants = new Set(
				outcomes.flatMap((outcome) => (outcome.kind === "planned" ? outcome.variants.map((one) => one.id) : [])),
			);
			assert.equal(variants.size, 2);
			for (const id of new Set(ids)) await untilState(database, id, ["done"]);
			const jobs = (await listJobs(database.handle, { sourceRepo: "acme/two" })).items;
			assert.ok(jobs.length <= 2);
			const dispatched = world.calls().filter((one) => one.call === "publish" && one.detail.includes("/two-"));
			assert.equal(dispatched.length, 2);
		});

		test("a refused source gets a failed job that says why, once, and a word in the discussion", async () => {
			world.setHead("acme/pickled", shaOf("pickled"));
			world.setRefusal("acme/pickled", { code: "pickle-only", message: "Only pickles.", remedy: "Convert." });
			for (const dedupeKey of ["p1", "p2"]) {
				await bot.engine.storeDelivery({
					source: "hub",
					dedupeKey,
					receivedAt: new Date(),
					body: push("acme/pickled"),
				});
			}
			const jobs = await until("the refused job", async () => {
				const { items } = await listJobs(database.handle, { sourceRepo: "acme/pickled" });
				const { items: pending } = await listDeliveries(database.handle, { outcome: "pending" });
				return items.length > 0 && pending.length === 0 ? items : null;
			});
			assert.equal(jobs.length, 1);
			assert.equal(jobs[0]?.state, "failed");
			assert.equal(jobs[0]?.refusal?.code, "pickle-only");
			await until("the announcement", async () =>
				world.calls().some((one) => one.call === "announce" && one.detail === "acme/pickled failed pickle-only")
					? true
					: null,
			);
			const again = await bot.engine.retryJob(jobs[0]?.id ?? "");
			assert.deepEqual(again, { ok: false, reason: "Only pickles." });
		});

		test("a kind that the rules leave alone is refused without a word, whatever its files hold", async () => {
			const repo = "acme/text-only-1";
			world.setHead(repo, shaOf("text-only"));
			world.setRefusal(repo, { code: "unknown-architecture", message: "Unknown.", remedy: "None." });
			const body = push(repo);
			const { id } = await bot.engine.storeDelivery({ source: "hub", dedupeKey: repo, receivedAt: new Date(), body });
			const delivery = await until("the delivery to be settled", async () => {
				const found = await getDelivery(database.handle, id);
				return found !== null && found.outcome !== "pending" ? found : null;
			});
			assert.match(JSON.stringify(delivery), /none of the pipeline tags text-generation/);
			assert.equal((await listJobs(database.handle, { sourceRepo: repo })).items.length, 0);
		});

		test("deliveries that mean nothing to us are ignored with the reason", async () => {
			const bodies: readonly [unknown, RegExp][] = [
				[push("stranger/model"), /not watched/],
				[{ ...(push("acme/one") as object), updatedRefs: [{ ref: "refs/pr/3", newSha: "1" }] }, /does not touch/],
				[{ event: { action: "create", scope: "repo" }, repo: { type: "dataset", name: "acme/data" } }, /not a model/],
				["\u0000 half \ud800 a body", /not a Hub webhook/],
			];
			for (const [index, [body, reason]] of bodies.entries()) {
				const { id } = await bot.engine.storeDelivery({
					source: "hub",
					dedupeKey: `ignored:${index}`,
					receivedAt: new Date(),
					body,
				});
				const delivery = await until("the delivery to be settled", async () => {
					const found = await getDelivery(database.handle, id);
					return found !== null && found.outcome !== "pending" ? found : null;
				});
				assert.equal(delivery.outcome, "ignored");
				assert.match(delivery.detail ?? "", reason);
			}
		});

		test("faults of the Hub are tried again and leave one result", async () => {
			world.setHead("acme/flaky", shaOf("flaky"));
			for (const call of [
				"inspectSource",
				"fetchSource",
				"stage",
				"fetchStaged",
				"verify",
				"publish",
				"afterPublish",
			]) {
				world.setFailures(call, 1);
			}
			await bot.engine.storeDelivery({
				source: "hub",
				dedupeKey: "flaky",
				receivedAt: new Date(),
				body: push("acme/flaky"),
			});
			const job = await until("the job", async () => {
				const { items } = await listJobs(database.handle, { sourceRepo: "acme/flaky" });
				return items[0] ?? null;
			});
			await untilState(database, job.id, ["done"]);
			assert.equal(world.calls().filter((one) => one.call === "publish" && one.detail.includes("flaky")).length, 2);
		});

		test("a killed run is tried again under a new fence", async () => {
			world.setHead("acme/killed", shaOf("killed"));
			world.setBehaviour("acme/killed", { killItself: true, onlyFence: 1 });
			const outcome = await bot.engine.recordRequest({
				kind: "api",
				sourceRepo: "acme/killed",
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: "killed",
			});
			assert.ok(outcome.kind === "planned");
			const job = await untilState(database, outcome.job.id, ["done"]);
			assert.equal(job.fence, 2);
		});

		test("a full disk fails the job with its reason, and a retry by a person works", async () => {
			world.setHead("acme/full", shaOf("full"));
			world.setBehaviour("acme/full", { failure: "disk-full", exitCode: 5, onlyFence: 1 });
			const outcome = await bot.engine.recordRequest({
				kind: "api",
				sourceRepo: "acme/full",
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: "full",
			});
			assert.ok(outcome.kind === "planned");
			const failed = await untilState(database, outcome.job.id, ["failed"]);
			assert.equal(failed.refusal?.code, "disk-full");
			assert.ok((await listVariantsOfJob(database.handle, failed.id)).every((one) => one.state === "failed"));
			const retried = await bot.engine.retryJob(failed.id);
			assert.ok(retried.ok);
			const done = await untilState(database, failed.id, ["done"]);
			assert.equal(done.refusal, null);
			assert.equal(done.fence, 2);
		});

		test("a recipe whose container knows no such model is refused before the run, and the others are made", async () => {
			world.setHead("acme/gpt2", shaOf("gpt2"));
			world.setBehaviour("acme/gpt2", { modelType: "gpt2" });
			const request = { kind: "api", sourceRepo: "acme/gpt2", requester: "someone", replyTo: null } as const;
			const recipes = [recipeOf("w4a16"), recipeOf("onnx:q4"), recipeOf("mlx:4bit")];
			const outcome = await bot.engine.recordRequest({ ...request, recipes, dedupeKey: "api:gpt2" });
			assert.ok(outcome.kind === "planned");
			const planned = outcome.variants.find(({ recipe }) => recipe === "onnx:q4");
			assert.equal(planned?.state, "failed");
			assert.match(planned.refusal?.message ?? "", /ONNX graphs are built for .*; not for "gpt2"/);
			const mac = outcome.variants.find(({ recipe }) => recipe === "mlx:4bit");
			assert.match(mac?.refusal?.message ?? "", /MLX folders are written for .*; not for "gpt2"/);
			const job = await untilState(database, outcome.job.id, ["done"]);
			const states = (await listVariantsOfJob(database.handle, job.id)).map(({ recipe, state }) => [recipe, state]);
			assert.deepEqual(Object.fromEntries(states), { "mlx:4bit": "failed", "onnx:q4": "failed", w4a16: "published" });
			const told = [planned.refusal?.message, mac?.refusal?.message];
			assert.ok(told.includes(job.refusal?.message), job.refusal?.message);
			const alone = await bot.engine.recordRequest({
				...request,
				recipes: [recipeOf("onnx:q8")],
				dedupeKey: "api:gpt2-alone",
			});
			assert.ok(alone.kind === "refused");
			assert.match(alone.refusal.message, /^onnx:q8 cannot be written/);
		});

		test("a manifest of another attempt is refused and nothing is published", async () => {
			world.setHead("acme/liar", shaOf("liar"));
			world.setBehaviour("acme/liar", { lieAboutFence: true });
			const outcome = await bot.engine.recordRequest({
				kind: "api",
				sourceRepo: "acme/liar",
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: "liar",
			});
			assert.ok(outcome.kind === "planned");
			const failed = await untilState(database, outcome.job.id, ["failed"]);
			assert.equal(failed.refusal?.code, "verification-failed");
			assert.ok(!world.published().some((repo) => repo.includes("liar")));
		});

		test("a newer push supersedes the older one's unfinished job and ends its run", async () => {
			world.setHead("acme/moving", shaOf("old"));
			world.setBehaviour("acme/moving", { hang: true, onlyFence: 1, steps: 1 });
			const first = await bot.engine.recordRequest({
				kind: "push",
				sourceRepo: "acme/moving",
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: "moving:1",
			});
			assert.ok(first.kind === "planned");
			await untilState(database, first.job.id, ["running"]);
			world.setHead("acme/moving", shaOf("new"));
			world.setBehaviour("acme/moving", {});
			const second = await bot.engine.recordRequest({
				kind: "push",
				sourceRepo: "acme/moving",
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: "moving:2",
			});
			assert.ok(second.kind === "planned");
			await untilState(database, first.job.id, ["superseded"]);
			await untilState(database, second.job.id, ["done"]);
			assert.equal((await getJob(database.handle, second.job.id))?.sourceSha, shaOf("new"));
		});

		test("a head that was superseded by somebody's late look at an older commit is made all the same", async () => {
			const repo = "acme/late";
			let times = 0;
			const pushOf = async (sha: string) => {
				world.setHead(repo, shaOf(sha));
				return await bot.engine.recordRequest({
					kind: "push",
					sourceRepo: repo,
					recipes: [],
					requester: null,
					replyTo: null,
					dedupeKey: `late:${++times}`,
				});
			};
			world.setBehaviour(repo, { hang: true, onlyFence: 1, steps: 1 });
			const newest = await pushOf("newest");
			assert.ok(newest.kind === "planned");
			await untilState(database, newest.job.id, ["running"]);
			await pushOf("older");
			await untilState(database, newest.job.id, ["superseded"]);
			world.setBehaviour(repo, {});
			const again = await pushOf("newest");
			assert.ok(again.kind === "planned");
			await untilState(database, again.job.id, ["done"]);
			assert.equal((await getJob(database.handle, again.job.id))?.sourceSha, shaOf("newest"));
		});

		for (const [state, prepare] of [
			["planned", "lose"],
			["waiting", "hold"],
			["dispatching", "fetchSource"],
			["running", "hang"],
			["ingesting", "stage"],
			["verifying", "verify"],
			["publishing", "refuse"],
		] as const) {
			test(`a job that is ${state} can be cancelled, leaving nothing`, async () => {
				const repo = `acme/cancel-${state}`;
				world.setHead(repo, shaOf(repo));
				let blocker: string | null = null;
				if (prepare === "hold") {
					world.setHead("acme/blocker", shaOf("blocker"));
					world.setBehaviour("acme/blocker", { hang: true });
					const held = await bot.engine.recordRequest({
						kind: "api",
						sourceRepo: "acme/blocker",
						recipes: [recipeOf("w4a16")],
						requester: null,
						replyTo: null,
						dedupeKey: "blocker",
					});
					assert.ok(held.kind === "planned");
					blocker = held.job.id;
					await untilState(database, blocker, ["running"]);
				} else if (prepare === "hang") world.setBehaviour(repo, { hang: true, ignoreTerm: true });
				// A run that was lost is planned again after a pause.
				else if (prepare === "lose") world.setBehaviour(repo, { killItself: true });
				else if (prepare === "refuse") world.setFailures("publish", 1000);
				else world.setDelay(prepare, 3000);
				const outcome = await bot.engine.recordRequest({
					kind: "api",
					sourceRepo: repo,
					recipes: [recipeOf("w4a16")],
					requester: null,
					replyTo: null,
					dedupeKey: `cancel:${state}`,
				});
				assert.ok(outcome.kind === "planned");
				if (prepare === "lose") await untilState(database, outcome.job.id, ["running"]);
				await untilState(database, outcome.job.id, [state]);
				const change = await bot.engine.cancelJob(outcome.job.id);
				assert.ok(change.ok);
				if (prepare === "fetchSource" || prepare === "stage" || prepare === "verify") world.setDelay(prepare, 0);
				const job = await untilState(database, outcome.job.id, ["cancelled"]);
				assert.equal(job.refusal?.code, "cancelled");
				world.setFailures("publish", 0);
				if (blocker !== null) {
					await bot.engine.cancelJob(blocker);
					await untilState(database, blocker, ["cancelled"]);
				}
				await until("the clean-up", async () => {
					const left = readdirSync(join(own.dataDirectory, "runs"));
					return left.length === 0 && world.stagingRepos().length === 0 ? true : null;
				});
				assert.ok(!world.published().some((one) => one.includes(`cancel-${state}`)));
				assert.deepEqual(await bot.engine.cancelJob(outcome.job.id), {
					ok: false,
					reason: "The job is cancelled already.",
				});
			});
		}

		test("a commit that somebody named never takes the newest one's place, and is made anew once it is the newest", async () => {
			const newest = shaOf("named head");
			const named = shaOf("named");
			world.setHead("acme/named", newest);
			const ask = async (dedupeKey: string, revision: { readonly revision?: string }) => {
				const recipes = [recipeOf("w4a16")];
				const asked = { kind: "comment", sourceRepo: "acme/named", recipes, requester: "x", replyTo: null } as const;
				const outcome = await bot.engine.recordRequest({ ...asked, dedupeKey, ...revision });
				if (outcome.kind === "planned") await untilState(database, outcome.job.id, ["done"]);
				return outcome.kind;
			};
			const standing = async () =>
				(await listPublishedVariants(database.handle, { base: "acme/named" })).items
					.map((one) => `${one.sourceSha.slice(0, 4)} ${one.targetRepo.split("/")[1]}${one.isOlder ? " older" : ""}`)
					.toSorted();
			const usual = "named-YAQA-w4a16";
			const own = `${usual}-at-${named.slice(0, 12)}`;
			assert.equal(await ask("named:1", {}), "planned");
			assert.equal(await ask("named:2", { revision: named }), "planned");
			assert.deepEqual(
				await standing(),
				[`${newest.slice(0, 4)} ${usual}`, `${named.slice(0, 4)} ${own}`].toSorted(),
				"both stand, each in its place",
			);
			assert.equal(await ask("named:3", { revision: named }), "published");
			assert.equal(await ask("named:4", { revision: newest }), "published");
			world.setHead("acme/named", named);
			assert.equal(await ask("named:5", {}), "planned", "what stands beside the main branch is not the newest");
			assert.deepEqual(await standing(), [`${named.slice(0, 4)} ${usual}`]);
			assert.equal(await ask("named:6", { revision: newest }), "planned", "its files were replaced");
			assert.ok((await standing()).includes(`${newest.slice(0, 4)} ${usual}-at-${newest.slice(0, 12)}`));
		});

		test("the catalogue pages by key in every order and drops a replaced commit's variants", async () => {
			for (const sort of ["newest", "kl", "size"] as const) {
				const seen: string[] = [];
				let cursor: string | null = null;
				do {
					const page: Awaited<ReturnType<typeof listPublishedVariants>> = await listPublishedVariants(database.handle, {
						sort,
						cursor,
						limit: 3,
					});
					seen.push(...page.items.map((one) => one.id));
					cursor = page.next;
				} while (cursor !== null);
				assert.equal(new Set(seen).size, seen.length);
				assert.ok(seen.length >= 9);
			}
			const gguf = await listPublishedVariants(database.handle, { container: "gguf", bits: 8, limit: 100 });
			assert.deepEqual(
				gguf.items.map((one) => one.recipe),
				["gguf:q8_0"],
			);
			const found = await listPublishedVariants(database.handle, { search: "acme/on%", limit: 100 });
			assert.equal(found.items.length, 0);
		});

		test("a job that costs too much waits for money or approval, says who gives it, and goes on then", async (t) => {
			const machine: Hardware = {
				runner: "hf-jobs",
				flavor: "l4x1",
				title: "an L4",
				cores: 8,
				memoryBytes: 64e9,
				accelerator: { model: "L4", count: 1, bytesEach: 24e9 },
				microUsdPerMinute: 1e6,
			};
			await bot.engine.stop();
			const withBudget = (budget: ConfigurationInput["budget"]) => {
				const configuration = scriptedConfiguration(own.dataDirectory, { budget });
				const engine = engineWithRequests({
					database,
					configuration,
					ports: scriptedPorts(world),
					runner: bot.runner,
					estimator: async () => createEstimator(configuration, [machine], []),
					superviseIntervalMs: 200,
				});
				t.after(() => engine.stop());
				return engine;
			};
			world.setHead("acme/dear", shaOf("dear"));
			const ask = async (engine: EngineWithRequests) => {
				const outcome = await engine.recordRequest({
					kind: "api",
					sourceRepo: "acme/dear",
					recipes: [recipeOf("w4a16")],
					requester: null,
					replyTo: null,
					dedupeKey: "dear",
				});
				assert.ok(outcome.kind === "planned", JSON.stringify(outcome));
				return outcome.job.id;
			};
			const poor = withBudget({ perMonthUsd: 0.01 });
			await poor.start();
			const id = await ask(poor);
			const waiting = await untilState(database, id, ["waiting"]);
			assert.match(waiting.statusText, /Waits for money.*when whoever runs the bot raises budget\.perMonthUsd/);
			await poor.stop();
			const careful = withBudget({ approvalUsd: 0.01 });
			await careful.start();
			await until("the other reason", async () => {
				await database.handle
					.updateTable("jobs")
					.set({ next_step_at: new Date(), held_until: null })
					.where("id", "=", id)
					.execute();
				const job = await getJob(database.handle, id);
				return /Waits for approval.*Whoever runs the bot approves it/.test(job?.statusText ?? "") ? true : null;
			});
			assert.ok((await careful.approveJob(id)).ok);
			await untilState(database, id, ["done"]);
			await careful.stop();
			const strict = withBudget({ perJobUsd: 0.01 });
			await strict.start();
			world.setHead("acme/dearer", shaOf("dearer"));
			const refused = await strict.recordRequest({
				kind: "api",
				sourceRepo: "acme/dearer",
				recipes: [recipeOf("w4a16")],
				requester: null,
				replyTo: null,
				dedupeKey: "dearer",
			});
			assert.ok(refused.kind === "refused");
			assert.match(refused.refusal.remedy, /whoever runs the bot raise budget\.perJobUsd/);
			await strict.stop();
			bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
		});

		test("after a stop the next engine goes on with the run there is, and ends those that nobody waits for", async () => {
			world.setHead("acme/later", shaOf("later"));
			world.setBehaviour("acme/later", { steps: 20, delayMs: 100 });
			const outcome = await bot.engine.recordRequest({
				kind: "api",
				sourceRepo: "acme/later",
				recipes: [recipeOf("w4a16")],
				requester: null,
				replyTo: null,
				dedupeKey: "later",
			});
			assert.ok(outcome.kind === "planned");
			await untilState(database, outcome.job.id, ["running"]);
			await bot.engine.stop();
			await database.close();
			const source = join(own.dataDirectory, "orphan");
			mkdirSync(source, { recursive: true });
			writeFileSync(join(source, "behaviour.json"), JSON.stringify({ hang: true, ignoreTerm: true, steps: 1 }));
			const orphan = await bot.runner.dispatch({
				protocol: 1,
				job: randomUUID(),
				fence: 1,
				source: { repo: "acme/orphan", revision: shaOf("orphan"), path: source },
				calibration: { kind: "self", sequences: 1, length: 8, seed: 0 },
				evaluation: { selection: [], report: [], sequences: 2, length: 8, verificationSequences: 1 },
				sketch: { kind: "a", iterations: 6, sigmaInput: 0.01, sigmaOutput: 0.1 },
				tuning: { passes: 1 },
				variants: [{ id: randomUUID(), recipe: parsedRecipe(recipeOf("w4a16")) }],
				staging: { kind: "directory", path: "/nowhere" },
				limits: { device: "cpu" },
			});
			const runFile = join(own.dataDirectory, "runs", orphan.handle, "process.json");
			const { pid } = JSON.parse(readFileSync(runFile, "utf8"));
			assert.ok(listGroup(pid).length > 0);
			database = await own.open();
			bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
			assert.deepEqual(listGroup(pid), []);
			assert.ok(!existsSync(runFile));
			const job = await untilState(database, outcome.job.id, ["done"]);
			assert.equal(job.fence, 1);
		});
	});
});
