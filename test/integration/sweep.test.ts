import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Database } from "../../src/db/database.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { listVariantsOfJob } from "../../src/db/variants.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { push, type ScriptedBot, scriptedBot, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

await onEveryDatabase((databases, name) => {
	describe(`sweep on ${name}`, { concurrency: false }, () => {
		let own: TestDatabases;
		let database: Database;
		let world: ScriptedWorld;
		let bots: readonly ScriptedBot[];

		before(async () => {
			own = await databases();
			database = await own.open();
			world = scriptedWorld(worldFolder(own.dataDirectory));
			world.setHead("acme/old", shaOf("old"));
			world.setHead("other/listed", shaOf("listed"));
			const overrides = { watch: { repos: ["other/listed"], exclude: ["*-draft"] } };
			// On PostgreSQL two replicas share the work; the embedded database takes one process.
			const replicas = name === "PostgreSQL" ? 2 : 1;
			bots = Array.from({ length: replicas }, () =>
				scriptedBot({ database, world, dataDirectory: own.dataDirectory, overrides }),
			);
			for (const bot of bots) await bot.engine.start();
		});
		after(async () => {
			for (const one of bots) await one.engine.stop();
			await database.close();
		});

		test("what a namespace holds at first is left alone; a push whose webhook was lost is found", async () => {
			const [bot] = bots;
			assert.ok(bot !== undefined);
			await bot.engine.sweepNow();
			const first = (await listJobs(database.handle)).items;
			assert.deepEqual(
				first.map((job) => job.sourceRepo),
				["other/listed"],
			);
			world.setHead("acme/old", shaOf("old, changed"));
			world.setHead("acme/new", shaOf("new"));
			world.setHead("acme/new-draft", shaOf("draft"));
			const reports = await Promise.all(bots.flatMap((one) => [one.engine.sweepNow(), one.engine.sweepNow()]));
			assert.ok(reports.every((report) => report.failed === 0));
			const jobs = (await listJobs(database.handle)).items;
			assert.deepEqual(jobs.map((job) => job.sourceRepo).toSorted(), ["acme/new", "acme/old", "other/listed"]);
			for (const job of jobs) await untilState(database, job.id, ["done"], 60);
			assert.equal(world.calls().filter((one) => one.call === "publish").length, 6);
		});

		test("a push that was told of is not found again, and one refused is not tried at every sweep", async () => {
			const [bot] = bots;
			assert.ok(bot !== undefined);
			world.setHead("acme/told", shaOf("told"));
			world.setHead("acme/bad", shaOf("bad"));
			world.setRefusal("acme/bad", { code: "pickle-only", message: "Only pickles.", remedy: "Convert." });
			for (const repo of ["acme/told", "acme/bad"]) {
				await bot.engine.storeDelivery({ source: "hub", dedupeKey: repo, receivedAt: new Date(), body: push(repo) });
			}
			await until("the deliveries", async () => {
				const [told] = (await listJobs(database.handle, { sourceRepo: "acme/told" })).items;
				const [bad] = (await listJobs(database.handle, { sourceRepo: "acme/bad" })).items;
				return told !== undefined && bad !== undefined ? true : null;
			});
			const report = await bot.engine.sweepNow();
			assert.equal(report.found, 0);
			assert.equal((await listJobs(database.handle, { sourceRepo: "acme/bad" })).items.length, 1);
		});

		test("an empty repo that only a sweep passed by is left in peace; one that was pushed to is told why", async () => {
			const [bot] = bots;
			assert.ok(bot !== undefined);
			const empty = { code: "empty-repo", message: "There are no files.", remedy: "Push a model." } as const;
			world.setHead("acme/fresh", shaOf("fresh"));
			world.setRefusal("acme/fresh", empty);
			await bot.engine.sweepNow();
			assert.equal((await listJobs(database.handle, { sourceRepo: "acme/fresh" })).items.length, 0);

			world.setHead("acme/readme", shaOf("readme"));
			world.setRefusal("acme/readme", empty);
			const delivery = {
				source: "hub",
				dedupeKey: "readme",
				receivedAt: new Date(),
				body: push("acme/readme"),
			} as const;
			await bot.engine.storeDelivery(delivery);
			const job = await until("the refusal", async () => {
				return (await listJobs(database.handle, { sourceRepo: "acme/readme" })).items[0] ?? null;
			});
			assert.equal(job.refusal?.code, "empty-repo");
		});

		test("the owner's word in the repo: no, other recipes, or a file that cannot be read", async () => {
			const [bot] = bots;
			assert.ok(bot !== undefined);
			world.setOwnerSettings("acme/no", { settings: "enabled: false", closed: false });
			world.setOwnerSettings("acme/closed", { settings: null, closed: true });
			world.setOwnerSettings("acme/chosen", { settings: "recipes: [gguf:q8_0]", closed: false });
			world.setOwnerSettings("acme/wrong", { settings: "recipes: [gguf:q9_9]", closed: false });
			for (const name of ["no", "closed", "chosen", "wrong"]) world.setHead(`acme/${name}`, shaOf(name));
			await bot.engine.sweepNow();
			const jobsOf = async (name: string) => (await listJobs(database.handle, { sourceRepo: `acme/${name}` })).items;
			assert.deepEqual([await jobsOf("no"), await jobsOf("closed")], [[], []]);
			const [chosen] = await jobsOf("chosen");
			assert.deepEqual(
				(await listVariantsOfJob(database.handle, chosen?.id ?? "")).map((variant) => variant.recipe),
				["gguf:q8_0"],
			);
			const [wrong] = await jobsOf("wrong");
			assert.equal(wrong?.refusal?.code, "bad-settings");
			await until("the status discussion to say so", async () =>
				world.calls().some((one) => one.call === "announce" && one.detail === "acme/wrong failed bad-settings")
					? true
					: null,
			);
			assert.equal((await bot.engine.sweepNow()).found, 0);
		});
	});
});
