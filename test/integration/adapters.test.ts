import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import type { Database } from "../../src/db/database.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { listVariantsOfSource } from "../../src/db/variants.ts";
import { isShown } from "../../src/db/visibility.ts";
import { workFolders } from "../../src/jobs/work-folders.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { recipeOf } from "../support/recipe-of.ts";
import { type ScriptedBot, scriptedBot, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

const ADAPTER = "acme/tuned";
const BASE = "elsewhere/base";

await onEveryDatabase((databases, name) => {
	describe(`an adapter's base, on ${name}`, { concurrency: false }, () => {
		let database: Database;
		let world: ScriptedWorld;
		let bot: ScriptedBot;
		let dataDirectory = "";

		async function ask(recipe: string, key: string, kind: "push" | "api" = "api") {
			const asked = { kind, sourceRepo: ADAPTER, recipes: [recipeOf(recipe)], requester: null, replyTo: null };
			const outcome = await bot.engine.recordRequest({ ...asked, dedupeKey: key });
			assert.equal(outcome.kind, "planned");
			return outcome.kind === "planned" ? outcome.job : assert.fail();
		}
		const basesOf = async () =>
			(await listVariantsOfSource(database.handle, ADAPTER, { publishedOnly: true })).map(
				({ recipe, sourceSha, manifest }) => `${recipe} ${sourceSha} ${manifest?.source.base?.revision}`,
			);

		before(async () => {
			const own = await databases();
			({ dataDirectory } = own);
			database = await own.open();
			world = scriptedWorld(worldFolder(dataDirectory));
			bot = scriptedBot({ database, world, dataDirectory });
			world.setHead(ADAPTER, shaOf("adapter"));
			world.setHead(BASE, shaOf("base"));
			world.setBase(ADAPTER, BASE);
			await bot.engine.start();
		});
		after(async () => {
			await bot.engine.stop();
			await database.close();
		});

		test("stays at the commit that it had first, whatever is pushed there", async () => {
			await untilState(database, (await ask("w4a16", "first")).id, ["done"], 120);
			world.setHead(BASE, shaOf("base, changed"));
			await untilState(database, (await ask("w8a16", "second")).id, ["done"], 120);
			const own = `${shaOf("adapter")} ${shaOf("base")}`;
			assert.deepEqual((await basesOf()).toSorted(), [`w4a16 ${own}`, `w8a16 ${own}`]);
			const folder = workFolders(dataDirectory).source(ADAPTER, shaOf("adapter"));
			assert.ok(existsSync(folder), "the base is kept with the adapter, and goes with it");
			assert.ok(!existsSync(workFolders(dataDirectory).source(BASE, shaOf("base"))));
		});

		test("is looked at anew for the adapter's next commit", async () => {
			world.setHead(ADAPTER, shaOf("adapter, changed"));
			await untilState(database, (await ask("w4a16", "third")).id, ["done"], 120);
			assert.ok((await basesOf()).includes(`w4a16 ${shaOf("adapter, changed")} ${shaOf("base, changed")}`));
		});

		test("closes what was made with it when it is closed", async () => {
			world.setPrivate(BASE, true);
			await bot.engine.sweepNow();
			const tightened = world.calls().filter(({ call }) => call === "tighten");
			assert.deepEqual(tightened.map(({ detail }) => detail).toSorted(), [
				"quantized/tuned-YAQA-w4a16",
				"quantized/tuned-YAQA-w8a16",
			]);
			assert.equal(await isShown(database.handle, ADAPTER, "everybody"), false);
		});

		test("cannot be another one than the bot looked at", async () => {
			world.setBehaviour(ADAPTER, { base: null });
			const job = await untilState(database, (await ask("gguf:q4_0", "fourth")).id, ["failed"], 120);
			assert.match(job.refusal?.message ?? "", /names another base/);
			assert.equal((await listJobs(database.handle, { sourceRepo: ADAPTER })).items.length, 4);
		});
	});
});
