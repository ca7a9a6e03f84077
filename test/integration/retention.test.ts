import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { sql } from "kysely";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { insertDelivery, listDeliveries } from "../../src/db/deliveries.ts";
import { listJobEvents, listJobs } from "../../src/db/jobs.ts";
import { probeWrite } from "../../src/db/retention.ts";
import { keepSketch } from "../../src/db/sketches.ts";
import type { JobsContext } from "../../src/jobs/context.ts";
import { tidyUp } from "../../src/jobs/retention/tidy-up.ts";
import { workFolders } from "../../src/jobs/work-folders.ts";
import { silentLog } from "../../src/log.ts";
import { checkStorage } from "../../src/server/build-site.ts";
import { createMetrics } from "../../src/web/metrics.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { push, type ScriptedBot, scriptedBot, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { type ScriptedWorld, scriptedPorts, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

const DAY = 86_400_000;

await onEveryDatabase((databases, name) => {
	describe(`what is kept, on ${name}`, { concurrency: false }, () => {
		let own: TestDatabases;
		let database: Database;
		let world: ScriptedWorld;
		let bot: ScriptedBot;
		const folders = () => workFolders(own.dataDirectory);

		before(async () => {
			own = await databases();
			database = await own.open();
			world = scriptedWorld(worldFolder(own.dataDirectory));
			bot = scriptedBot({
				database,
				world,
				dataDirectory: own.dataDirectory,
				overrides: { retention: { freeGigabytes: 0 } },
			});
			await bot.engine.start();
		});
		after(async () => {
			await bot.engine.stop();
			await database.close();
		});

		function contextWith(retention: Partial<JobsContext["configuration"]["retention"]> = {}): JobsContext {
			return {
				database,
				clock: systemClock,
				log: silentLog,
				configuration: {
					...bot.configuration,
					retention: { ...bot.configuration.retention, ...retention },
				},
				ports: scriptedPorts(world),
				runner: bot.runner,
				newId: randomUUID,
				owner: "the test",
				wake: async () => undefined,
			};
		}
		async function jobOn(repo: string, sha: string): Promise<string> {
			world.setHead(repo, sha);
			await bot.engine.storeDelivery({
				source: "hub",
				dedupeKey: `${repo} ${sha}`,
				receivedAt: new Date(),
				body: push(repo),
			});
			return await until(`the job on ${repo}`, async () => {
				const { items } = await listJobs(database.handle, { sourceRepo: repo });
				return items.find((job) => job.sourceSha === sha)?.id ?? null;
			});
		}
		function fill(path: string, megabytes: number, ageDays: number): void {
			mkdirSync(path, { recursive: true });
			writeFileSync(join(path, "file"), Buffer.alloc(megabytes * 1024 * 1024, 1));
			const used = new Date(Date.now() - ageDays * DAY);
			utimesSync(path, used, used);
		}

		test("the snapshot of a private source goes with the last job on it, that of an open one is kept", async () => {
			world.setPrivate("acme/secret", true);
			for (const repo of ["acme/secret", "acme/open"]) {
				await untilState(database, await jobOn(repo, shaOf(repo)), ["done"]);
			}
			const secret = folders().source("acme/secret", shaOf("acme/secret"));
			await until("the snapshot to go", async () => (existsSync(secret) ? null : true));
			assert.ok(existsSync(folders().source("acme/open", shaOf("acme/open"))));
		});

		test("a private snapshot that a killed bot left goes at the next look", async () => {
			const left = folders().source("acme/secret", shaOf("acme/secret"));
			fill(left, 1, 0);
			const report = await tidyUp(contextWith());
			assert.ok(!existsSync(left));
			assert.equal(report.sources.removed, 1);
		});

		test("sources and sketches go by age, size and free space, the least recently used first, never one in use", async () => {
			world.setBehaviour("acme/busy", { hang: true });
			const busy = await jobOn("acme/busy", shaOf("busy"));
			await untilState(database, busy, ["running"]);
			const inUse = folders().source("acme/busy", shaOf("busy"));
			utimesSync(inUse, new Date(0), new Date(0));
			const sketchOf = async (repo: string, storeAt: Date | null) => {
				const directory = folders().sketch(repo);
				fill(directory, 2, 400);
				const identity = { repo, sha: shaOf(repo), fingerprint: "f" };
				await keepSketch(database.handle, {
					...identity,
					key: repo,
					directory,
					license: null,
					storeAt,
					now: new Date(),
				});
				return directory;
			};
			const sketches = {
				busy: await sketchOf("acme/busy", null),
				toUpload: await sketchOf("acme/to-upload", new Date()),
				old: await sketchOf("acme/long-gone", null),
			};
			const names = ["a", "b", "c", "d"].map((one) => join(own.dataDirectory, "sources", one));
			const [oldest = "", older = "", newer = "", newest = ""] = names;
			fill(oldest, 1, 20);
			fill(older, 2, 3);
			fill(newer, 2, 2);
			fill(newest, 2, 1);

			const bySize = await tidyUp(contextWith({ sources: { days: 14, gigabytes: 0.0045 } }));
			assert.deepEqual(names.map(existsSync), [false, false, true, true]);
			assert.ok(existsSync(inUse), "of a job that runs");
			assert.deepEqual(
				[existsSync(sketches.busy), existsSync(sketches.toUpload), existsSync(sketches.old)],
				[true, true, false],
			);
			assert.ok(bySize.sources.bytes < 4.5e6 && bySize.sources.bytes > 4e6, String(bySize.sources.bytes));

			await tidyUp(contextWith({ freeGigabytes: 1e9 }));
			assert.deepEqual(names.map(existsSync), [false, false, false, false]);
			assert.ok(existsSync(inUse), "even where the disk is nearly full");
			await bot.engine.cancelJob(busy);
			await untilState(database, busy, ["cancelled"]);
		});

		test("logs of runs go by age and size, files of attempts that ended after a day", async () => {
			const logs = join(own.dataDirectory, "logs");
			fill(join(logs, "old"), 1, 31);
			fill(join(logs, "new"), 1, 1);
			const attempt = join(own.dataDirectory, "work", `${randomUUID()}-1`);
			fill(attempt, 1, 2);
			await tidyUp(contextWith());
			assert.ok(!readdirSync(logs).includes("old") && readdirSync(logs).includes("new"));
			assert.ok(!existsSync(attempt));
			await tidyUp(contextWith({ logs: { days: 30, gigabytes: 0 } }));
			assert.deepEqual(readdirSync(logs), []);
		});

		test("deliveries go by age and number once they are settled, none that could be sent again", async () => {
			const deliver = async (key: string, ageDays: number, outcome: string) => {
				const receivedAt = new Date(Date.now() - ageDays * DAY);
				const { id } = await insertDelivery(database.handle, {
					id: randomUUID(),
					source: "hub",
					dedupeKey: key,
					receivedAt,
					body: {},
				});
				// A delivery of the past cannot be worked on in the present.
				await sql`update deliveries set outcome = ${outcome}, next_attempt_at = now() + interval '1 day' where id = ${id}::uuid`.execute(
					database.handle,
				);
			};
			await deliver("old", 31, "ignored");
			await deliver("old and pending", 31, "pending");
			await deliver("three days", 3, "accepted");
			await deliver("a day", 1, "accepted");
			const keys = async () =>
				(await listDeliveries(database.handle, { limit: 100 })).items
					.map((one) => one.dedupeKey)
					.filter((key) => !key.startsWith("acme/"));
			await tidyUp(contextWith());
			assert.deepEqual(await keys(), ["a day", "three days", "old and pending"]);
			const report = await tidyUp(contextWith({ deliveries: { days: 30, rows: 0 } }));
			assert.deepEqual(await keys(), ["a day", "old and pending"]);
			assert.equal(report.deliveries.removed, 1);
		});

		test("what runs told goes some time after their job, its changes of state stay", async () => {
			const [job] = (await listJobs(database.handle, { sourceRepo: "acme/open" })).items;
			assert.ok(job !== undefined);
			const kinds = async () => new Set((await listJobEvents(database.handle, job.id, 0, 1000)).map((one) => one.kind));
			assert.deepEqual(await kinds(), new Set(["state", "runner"]));
			await tidyUp(contextWith());
			assert.deepEqual(await kinds(), new Set(["state", "runner"]), "too new");
			const report = await tidyUp(contextWith({ events: { days: 90, rows: 0 } }));
			assert.deepEqual(await kinds(), new Set(["state"]));
			assert.ok(report.events.removed > 0);
		});

		test("the metrics show what is kept and what went", async () => {
			const metrics = createMetrics(() => 12_345);
			metrics.setKept(await tidyUp(contextWith()));
			metrics.setKept({ logs: { entries: 1, bytes: 7, removed: 2 } });
			const text = await metrics.registry.metrics();
			for (const what of ["sources", "sketches", "logs", "work", "deliveries", "events"]) {
				assert.match(text, new RegExp(`^yaqa_bot_kept_entries\\{what="${what}"\\} \\d+$`, "m"));
			}
			assert.match(text, /^yaqa_bot_kept_bytes\{what="logs"\} 7$/m);
			assert.match(text, /^yaqa_bot_pruned_total\{what="logs"\} 2$/m);
			assert.match(text, /^yaqa_bot_disk_free_bytes 12345$/m);
		});

		test("the bot is not ready where a delivery could not be stored", async () => {
			await checkStorage(database, own.dataDirectory, 1);
			await assert.rejects(checkStorage(database, own.dataDirectory, Number.MAX_SAFE_INTEGER), /bytes are free/);
			await assert.rejects(
				database.transaction(async (tx) => {
					await sql`set transaction read only`.execute(tx);
					await probeWrite(tx, new Date());
				}),
				/read-only/,
			);
		});
	});
});
