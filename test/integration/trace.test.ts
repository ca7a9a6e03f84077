import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { createLog } from "../../src/log.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { push, type ScriptedBot, scriptedBot, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

type Line = Readonly<Record<string, unknown>>;

await onEveryDatabase((databases, name) => {
	// One kind is enough for what the program writes.
	if (name !== "PGlite") return;
	let database: Database;
	let world: ScriptedWorld;
	let lines: Line[] = [];
	let dataDirectory = "";
	const log = createLog({
		level: "debug",
		write: (line) => void lines.push(JSON.parse(line) as Line),
		now: () => systemClock.now(),
	});
	const bot = (): ScriptedBot => scriptedBot({ database, world, dataDirectory, log });
	before(async () => {
		const own = await databases();
		dataDirectory = own.dataDirectory;
		database = await own.open();
		world = scriptedWorld(worldFolder(dataDirectory));
	});
	const started: ScriptedBot[] = [];
	after(async () => {
		for (const one of started) await one.engine.stop();
		await database.close();
	});

	test("every line that comes of a webhook has its id, up to the published repos, over a restart too", async () => {
		lines = [];
		world.setHead("acme/model", shaOf("one"));
		world.setHead("acme/other", shaOf("two"));
		world.setBehaviour("acme/model", { steps: 20, delayMs: 50 });
		const first = bot();
		const second = bot();
		started.push(first, second);
		await first.engine.start();
		const deliver = async (repo: string) =>
			(await first.engine.storeDelivery({ source: "hub", dedupeKey: repo, receivedAt: new Date(), body: push(repo) }))
				.id;
		const ids = { "acme/model": await deliver("acme/model"), "acme/other": await deliver("acme/other") };
		const jobOf = async (repo: string) =>
			await until(
				`the job on ${repo}`,
				async () => (await listJobs(database.handle, { sourceRepo: repo })).items[0] ?? null,
			);
		await untilState(database, (await jobOf("acme/model")).id, ["running", "ingesting", "verifying"], 100);
		await first.engine.stop();
		await second.engine.start();
		for (const repo of ["acme/model", "acme/other"] as const) {
			const job = await jobOf(repo);
			await untilState(database, job.id, ["done"], 150);
			const own = lines.filter((line) => line["delivery"] === ids[repo] || line["job"] === job.id);
			assert.deepEqual(
				own.filter((line) => line["trace"] !== ids[repo]),
				[],
			);
			const messages = new Set(lines.filter((line) => line["trace"] === ids[repo]).map((line) => line["message"]));
			for (const message of ["A delivery was worked on", "A job went on", "Variants were published"]) {
				assert.ok(messages.has(message), `${message}: ${[...messages].join(", ")}`);
			}
		}
	});
});
