import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import { Client } from "pg";
import { listDeliveries } from "../../src/db/deliveries.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { push, scriptedBot, until, worldFolder } from "../support/scripted-bot.ts";
import { scriptedWorld, shaOf } from "../support/scripted-ports.ts";

/** The embedded database has no connections that could break. */
await onEveryDatabase((databases, name) => {
	const skip = name === "PGlite" ? "skipped: no connections" : false;
	describe(`connections that break, on ${name}`, { skip, concurrency: false }, () => {
		test("one that ends within a transaction rejects its work and nothing else", async () => {
			const own = await databases();
			const database = await own.open();
			const killer = new Client(own.databaseUrl ?? "");
			await killer.connect();
			await assert.rejects(
				database.transaction(async (tx) => {
					const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx);
					await killer.query("select pg_terminate_backend($1)", [rows[0]?.pid]);
					// The connection's end arrives between two queries, when nobody waits for an answer on it.
					await sleep(200);
					await sql`select 1`.execute(tx);
				}),
			);
			await database.check();
			await killer.end();
			await database.close();
		});

		test("a burst of deliveries survives the random end of connections of both pools", async () => {
			const own = await databases();
			const database = await own.open();
			const world = scriptedWorld(worldFolder(own.dataDirectory));
			const bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			await bot.engine.start();
			const killer = new Client(own.databaseUrl ?? "");
			await killer.connect();
			let killed = 0;
			const ends = new Set<string>();
			const repos = Array.from({ length: 12 }, (_, index) => `acme/burst-${index}`);
			for (const repo of repos) world.setHead(repo, shaOf(repo));
			let sending = true;
			const killing = (async () => {
				while (sending || killed < 25) {
					const { rows } = await killer.query<{ application_name: string }>(
						`select application_name, pg_terminate_backend(pid) from pg_stat_activity
						 where datname = current_database() and application_name like 'yaqa-bot%' and random() < 0.3`,
					);
					killed += rows.length;
					for (const row of rows) ends.add(row.application_name);
					if (killed >= 25) return;
					await sleep(60);
				}
			})();
			for (const repo of repos) {
				// A sender that got no answer sends again.
				await until(`the delivery for ${repo}`, async () => {
					try {
						const delivery = { source: "hub", dedupeKey: repo, receivedAt: new Date(), body: push(repo) } as const;
						return await bot.engine.storeDelivery(delivery);
					} catch {
						return null;
					}
				});
			}
			sending = false;
			await killing;
			await until(
				"every job to be done",
				async () => {
					const { items } = await listJobs(database.handle, { limit: 100 });
					return items.length === repos.length && items.every((job) => job.state === "done") ? true : null;
				},
				120,
			);
			const { items } = await listDeliveries(database.handle);
			assert.ok(items.every((one) => one.outcome === "accepted"));
			assert.deepEqual([...ends].toSorted(), ["yaqa-bot", "yaqa-bot-queue"]);
			await killer.end();
			await bot.engine.stop();
			await database.close();
		});
	});
});
