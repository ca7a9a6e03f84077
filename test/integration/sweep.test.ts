import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Database } from "../../src/db/database.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { push, type ScriptedBot, scriptedBot, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

await onEveryDatabase((databases, name) => {
	describe(`sweep on ${name}`, { concurrency: false }, () => {
		let own: TestDatabases;
		let database: Database;
		let world: ScriptedWorld;
		let bots: readonly ScriptedBot[];

		test("what a namespace holds at first is left alone; a push whose webhook was lost is found", async () => {
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
			for (const one of bots) await one.engine.stop();
			await database.close();
		});
	});
});
