import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import type { Database } from "../../src/db/database.ts";
import { listDeliveries } from "../../src/db/deliveries.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { getStatusDiscussion } from "../../src/db/status-discussions.ts";
import { getKnownHead } from "../../src/db/sweeps.ts";
import { listPublishedVariants, listVariantsOfSource } from "../../src/db/variants.ts";
import { isShown, listPublishedRepos } from "../../src/db/visibility.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { recipeOf } from "../support/recipe-of.ts";
import { push, type ScriptedBot, scriptedBot, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

await onEveryDatabase((databases, name) => {
	describe(`a renamed source, on ${name}`, { concurrency: false }, () => {
		let database: Database;
		let world: ScriptedWorld;
		let bot: ScriptedBot;
		let model = 0;
		let former = "";
		let now = "";

		const settled = async (key: string) =>
			await until(`the delivery ${key}`, async () => {
				const { items } = await listDeliveries(database.handle, { limit: 50 });
				const found = items.find((one) => one.dedupeKey === key);
				return found !== undefined && found.outcome !== "pending" ? found : null;
			});
		const deliver = async (key: string, body: unknown) => {
			await bot.engine.storeDelivery({ source: "hub", dedupeKey: key, receivedAt: new Date(), body });
			return await settled(key);
		};
		const tellOfMove = async () =>
			await deliver(`move ${former}`, {
				event: { action: "move", scope: "repo" },
				repo: { type: "model", name: former },
				movedTo: { name: now },
			});
		const jobsOf = async (sourceRepo: string) => (await listJobs(database.handle, { sourceRepo })).items;
		const publishes = () => world.calls().filter(({ call }) => call === "publish").length;

		before(async () => {
			const own = await databases();
			database = await own.open();
			world = scriptedWorld(worldFolder(own.dataDirectory));
			bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
			await bot.engine.sweepNow();
		});
		after(async () => {
			await bot.engine.stop();
			await database.close();
		});
		beforeEach(async () => {
			model++;
			former = `acme/tiny-${model}`;
			now = `acme/small-${model}`;
			world.setHead(former, shaOf(former));
			await deliver(`push ${former}`, push(former));
			const [job] = await jobsOf(former);
			await untilState(database, job?.id ?? "", ["done"], 60);
		});

		test("what was made is found under the new name, and nothing is made again for it", async () => {
			const published = publishes();
			world.rename(former, now);
			assert.equal((await tellOfMove()).outcome, "accepted");
			assert.deepEqual(await jobsOf(former), []);
			assert.equal((await jobsOf(now)).length, 1);
			const variants = await listVariantsOfSource(database.handle, now);
			assert.deepEqual(
				variants.map(({ state, isCurrent }) => `${state} ${isCurrent}`),
				["published true", "published true"],
			);
			assert.equal((await getStatusDiscussion(database.handle, now)).discussion, 1);
			assert.equal(await getKnownHead(database.handle, former), null);
			assert.equal(await getKnownHead(database.handle, now), shaOf(former));
			assert.deepEqual(
				(await listPublishedRepos(database.handle, now)).map(({ repo }) => repo),
				[`quantized/tiny-${model}-YAQA-GGUF`, `quantized/tiny-${model}-YAQA-w4a16`],
			);
			assert.equal(
				(await listPublishedVariants(database.handle, { base: now, audience: "everybody" })).items.length,
				2,
			);
			const cards = world
				.calls()
				.filter(({ call, detail }) => call === "refresh-card" && detail.includes(`tiny-${model}-`));
			assert.equal(cards.length, 2, "the cards name the source as it is called now");

			assert.equal((await bot.engine.sweepNow()).found, 0, "the new name is no new model");
			for (const [index, sourceRepo] of [now, former].entries()) {
				const outcome = await bot.engine.recordRequest({
					kind: "api",
					sourceRepo,
					recipes: [recipeOf("w4a16")],
					requester: null,
					replyTo: null,
					dedupeKey: `again ${model} ${index}`,
				});
				assert.equal(outcome.kind, "published", `asked by ${sourceRepo}`);
			}
			assert.equal(publishes(), published);
		});

		test("a job that is under way goes on; the sweep sees to the records afterwards, and what is private stays hidden", async () => {
			world.setHead(former, shaOf(`${former} again`));
			world.setDelay("publish", 300);
			await deliver(`second push ${former}`, push(former));
			world.rename(former, now);
			assert.equal((await tellOfMove()).outcome, "accepted");
			const jobs = await jobsOf(former);
			assert.equal(jobs.length, 2, "it waits for the job");
			await untilState(database, jobs[0]?.id ?? "", ["done"], 60);
			world.setDelay("publish", 0);
			world.setPrivate(now, true);
			const report = await bot.engine.sweepNow();
			assert.deepEqual([report.found, report.failed], [0, 0]);
			assert.equal((await jobsOf(now)).length, 2);
			assert.deepEqual(await jobsOf(former), []);
			for (const repo of [former, now]) assert.equal(await isShown(database.handle, repo, "everybody"), false);
		});

		test("a commit that was made under both names keeps both, and a name that is not watched is not followed", async () => {
			world.setHead(now, shaOf(former));
			await deliver(`push ${now}`, push(now));
			const [other] = await jobsOf(now);
			await untilState(database, other?.id ?? "", ["done"], 60);
			world.rename(former, now);
			await tellOfMove();
			assert.equal((await listVariantsOfSource(database.handle, former)).length, 2);
			assert.equal((await listVariantsOfSource(database.handle, now)).length, 2);
			assert.equal((await listPublishedRepos(database.handle, now)).length, 4, "all follow the source's visibility");

			world.rename(now, `stranger/small-${model}`);
			former = now;
			now = `stranger/small-${model}`;
			await tellOfMove();
			assert.deepEqual(await jobsOf(now), []);
		});
	});
});
