import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../src/clock.ts";
import { backUp, restore } from "../../src/db/backup-file.ts";
import type { Database } from "../../src/db/database.ts";
import { insertDelivery } from "../../src/db/deliveries.ts";
import { dumpDatabase, restoreDatabase } from "../../src/db/dump.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { signingKey } from "../../src/db/pushed-events.ts";
import { setSourceVisibility } from "../../src/db/visibility.ts";
import { silentLog } from "../../src/log.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { runBot } from "../support/run-bot.ts";
import { push, scriptedBot, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

const NOW = new Date("2026-01-01T00:00:00Z");

async function linesOf(database: Database): Promise<readonly string[]> {
	const lines: string[] = [];
	await dumpDatabase(database, {
		now: NOW,
		write: async (line) => {
			lines.push(line);
		},
	});
	return lines.map((line, index) => (index === 0 ? "" : line)).toSorted();
}

async function* each(lines: readonly string[]): AsyncGenerator<string> {
	yield* lines;
}

await onEveryDatabase((databases, name) => {
	describe(`a backup of ${name}`, { concurrency: false }, () => {
		let folder: string;
		let own: TestDatabases;
		let database: Database;
		let world: ScriptedWorld;
		let lines: readonly string[];
		let backupPath: string;
		let unfinished: string;

		/** A bot that has published, refused, and has a run under way; and texts that copies lose easily. */
		before(async () => {
			folder = await mkdtemp(join(tmpdir(), "yaqa-backup-"));
			backupPath = join(folder, "backup.gz");
			own = await databases();
			database = await own.open();
			world = scriptedWorld(worldFolder(own.dataDirectory));
			const bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
			const deliver = async (repo: string, text: string) => {
				world.setHead(repo, shaOf(text));
				await bot.engine.storeDelivery({ source: "hub", dedupeKey: text, receivedAt: new Date(), body: push(repo) });
				return await until(`the job on ${text}`, async () => {
					const { items } = await listJobs(database.handle, { sourceRepo: repo });
					return items.find((job) => job.sourceSha === shaOf(text))?.id ?? null;
				});
			};
			for (const text of ["first", "second"]) {
				// The second takes over the first one's files: a row that refers to another of its table.
				world.setContent(shaOf(text), { weights: "same", companions: text });
				await untilState(database, await deliver("acme/model", text), ["done"]);
			}
			world.setRefusal("acme/refused", { code: "pickle-only", message: "Only „pickles“.", remedy: "Convert." });
			await untilState(database, await deliver("acme/refused", "refused"), ["failed"]);
			world.setBehaviour("acme/long", { hang: true, onlyFence: 1 });
			unfinished = await deliver("acme/long", "long");
			await untilState(database, unfinished, ["running"]);
			await bot.engine.stop();
			for (const [key, body] of [
				["text", { text: 'line\nbreak \\ " \u2028 🎉 {"end"', number: 1e21, precise: 0.1, nothing: null }],
				["null", null],
			] as const) {
				await insertDelivery(database.handle, {
					id: crypto.randomUUID(),
					source: "github",
					dedupeKey: key,
					receivedAt: new Date("1999-12-31T23:59:59.999Z"),
					body,
				});
			}
			await signingKey(database.handle, "progress", "a key", NOW);
			await setSourceVisibility(database.handle, { repo: "acme/secret", private: true, gated: "manual", now: NOW });
			const counts = await backUp(database, backupPath, NOW);
			assert.ok(Object.values(counts).reduce((sum, count) => sum + count, 0) > 30, JSON.stringify(counts));
			lines = await linesOf(database);
		});
		after(async () => {
			await database.close();
			await rm(folder, { recursive: true, force: true });
		});

		test("brings the same rows back, and the bot goes on with the run that was under way", async () => {
			const target = await databases();
			const restored = await target.open();
			try {
				await restore(restored, backupPath, NOW);
				assert.deepEqual(await linesOf(restored), lines);
				await assert.rejects(restore(restored, backupPath, NOW), /in use already/);
				assert.deepEqual(await linesOf(restored), lines);

				// On another machine: no run, no sketch, no snapshot; the outside is the same.
				const bot = scriptedBot({ database: restored, world, dataDirectory: target.dataDirectory });
				const published = world.calls().filter(({ call }) => call === "publish").length;
				const jobs = (await listJobs(restored.handle)).items.length;
				await restored.handle
					.updateTable("jobs")
					.set({ runner: bot.runner.name })
					.where("id", "=", unfinished)
					.execute();
				await bot.engine.start();
				const again = { source: "hub", dedupeKey: "first", receivedAt: new Date(), body: push("acme/model") } as const;
				assert.equal((await bot.engine.storeDelivery(again)).duplicate, true);
				await untilState(restored, unfinished, ["done"]);
				assert.equal(world.calls().filter(({ call }) => call === "publish").length, published + 2);
				assert.equal((await listJobs(restored.handle)).items.length, jobs);
				await bot.engine.stop();
			} finally {
				await restored.close();
			}
		});

		test("is for its owner's eyes only, and one that is damaged or cut off changes nothing", async () => {
			assert.equal(statSync(backupPath).mode & 0o777, 0o600);
			const whole = readFileSync(backupPath);
			const target = await databases();
			const empty = await target.open();
			try {
				const before = await linesOf(empty);
				const cut = join(folder, "cut.gz");
				writeFileSync(cut, whole.subarray(0, whole.length - 100));
				await assert.rejects(restore(empty, cut, NOW), /damaged or cut off/);
				const damaged = join(folder, "damaged.gz");
				const flipped = Buffer.from(whole);
				flipped[Math.floor(whole.length / 2)] = (whole[Math.floor(whole.length / 2)] ?? 0) ^ 0xff;
				writeFileSync(damaged, flipped);
				await assert.rejects(restore(empty, damaged, NOW));
				const dumped: string[] = [];
				await dumpDatabase(database, { now: NOW, write: async (line) => void dumped.push(line) });
				await assert.rejects(restoreDatabase(empty, { now: NOW, lines: each(dumped.slice(0, -1)) }), /cut off/);
				await assert.rejects(
					restoreDatabase(empty, { now: NOW, lines: each(dumped.toSpliced(3, 1)) }),
					/lacks rows|violates/,
				);
				const newer = dumped.with(0, (dumped[0] ?? "").replace(/"schema":\d+/, '"schema":9999'));
				await assert.rejects(restoreDatabase(empty, { now: NOW, lines: each(newer) }), /knows up to/);
				assert.deepEqual(await linesOf(empty), before);
			} finally {
				await empty.close();
			}
		});

		test("goes from one kind of database to the other", async () => {
			const dataDirectory = join(folder, "embedded");
			const options = { dataDirectory, databaseUrl: null, poolSize: 2, clock: systemClock, log: silentLog };
			if (name === "PGlite") return;
			const embedded = await openDatabase(options);
			await restore(embedded, backupPath, NOW);
			assert.deepEqual(await linesOf(embedded), lines);
			await embedded.close();

			const target = await databases();
			const env = { ...target.environment, YAQA_BOT_DATA_DIR: dataDirectory };
			const moved = await runBot(["to-postgres", "--json"], env);
			assert.equal(moved.code, 0, moved.err);
			const there = await target.open();
			assert.deepEqual(await linesOf(there), lines);
			await there.close();
			// A bot that is started without DATABASE_URL must not work on what is past.
			await assert.rejects(openDatabase(options), /was moved to PostgreSQL on 20/);
		});

		test("is written and restored by the command line", async () => {
			if (name === "PGlite") await database.close();
			const env = { ...own.environment, YAQA_BOT_DATA_DIR: own.dataDirectory };
			const file = join(folder, "by-command.gz");
			const written = await runBot(["backup", file, "--json"], env);
			assert.equal(written.code, 0, written.err);
			assert.ok(JSON.parse(written.out).rows.jobs >= 4);
			assert.equal((await runBot(["backup", file], env)).code, 1, "no backup is overwritten");
			const target = await databases();
			const elsewhere = { ...target.environment, YAQA_BOT_DATA_DIR: target.dataDirectory };
			const restored = await runBot(["restore", file, "--json"], elsewhere);
			assert.equal(restored.code, 0, restored.err);
			const there = await target.open();
			assert.deepEqual(await linesOf(there), lines);
			await there.close();
			assert.equal((await runBot(["restore", join(folder, "none.gz")], elsewhere)).code, 1);
			assert.ok(!existsSync(`${file}.draft`));
		});
	});
});
