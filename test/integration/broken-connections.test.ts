import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import { Client } from "pg";
import { isBrokenConnection } from "../../src/db/broken-connection.ts";
import type { Database } from "../../src/db/database.ts";
import { listDeliveries } from "../../src/db/deliveries.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { push, scriptedBot, until, worldFolder } from "../support/scripted-bot.ts";
import { scriptedWorld, shaOf } from "../support/scripted-ports.ts";

/** The embedded database has no connections that could break. */
await onEveryDatabase((databases, name) => {
	const skip = name === "PGlite" ? "skipped: no connections" : false;
	describe(`connections that break, on ${name}`, { skip, concurrency: false }, () => {
		/** A connection that ends others. */
		async function killerOf(t: TestContext, own: TestDatabases): Promise<Client> {
			const killer = new Client(own.databaseUrl ?? "");
			await killer.connect();
			t.after(() => killer.end());
			return killer;
		}

		test("one that ends within a transaction rejects its work and nothing else", async (t) => {
			const own = await databases();
			const database = await own.open();
			t.after(() => database.close());
			const killer = await killerOf(t, own);
			await assert.rejects(
				database.transaction(async (tx) => {
					const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx);
					await killer.query("select pg_terminate_backend($1)", [rows[0]?.pid]);
					// The connection's end arrives between two queries, when nobody waits for an answer on it.
					await sleep(200);
					await sql`select 1`.execute(tx);
				}),
				isBrokenConnection,
			);
			await database.check();
		});

		test("a burst of deliveries survives the random end of connections of both pools", async (t) => {
			const own = await databases();
			const database = await own.open();
			t.after(() => database.close());
			const world = scriptedWorld(worldFolder(own.dataDirectory));
			const bot = scriptedBot({ database, world, dataDirectory: own.dataDirectory });
			t.after(() => bot.engine.stop());
			await bot.engine.start();
			const killer = await killerOf(t, own);
			let killed = 0;
			const ends = new Set<string>();
			const repos = Array.from({ length: 12 }, (_, index) => `acme/burst-${index}`);
			for (const repo of repos) world.setHead(repo, shaOf(repo));
			const killing = (async () => {
				while (killed < 25) {
					const { rows } = await killer.query<{ application_name: string }>(
						`select application_name, pg_terminate_backend(pid) from pg_stat_activity
						 where datname = current_database() and application_name like 'yaqa-bot%' and random() < 0.3`,
					);
					killed += rows.length;
					for (const row of rows) ends.add(row.application_name);
					await sleep(60);
				}
			})();
			// A sender that got no answer sends again; a test that got none looks again.
			for (const repo of repos) {
				const delivery = { source: "hub", dedupeKey: repo, receivedAt: new Date(), body: push(repo) } as const;
				await until(`the delivery for ${repo}`, () => unlessBroken(() => bot.engine.storeDelivery(delivery)));
			}
			await killing;
			await until(
				"every job to be done",
				() =>
					unlessBroken(async () => {
						const { items } = await listJobs(database.handle, { limit: 100 });
						return items.length === repos.length && items.every((job) => job.state === "done") ? true : null;
					}),
				240,
			);
			const { items } = await listDeliveries(database.handle);
			assert.ok(items.every((one) => one.outcome === "accepted"));
			assert.deepEqual([...ends].toSorted(), ["yaqa-bot", "yaqa-bot-queue"]);
		});
	});
});

/** `null` where the database was out of reach. */
async function unlessBroken<T>(look: () => Promise<T | null>): Promise<T | null> {
	try {
		return await look();
	} catch (error) {
		if (isBrokenConnection(error)) return null;
		throw error;
	}
}

await onEveryDatabase((databases, name) => {
	test(`a delivery whose bot is gone in the middle of it is free again within seconds, on ${name}`, async (t) => {
		const own = await databases();
		const gone = await own.open();
		const world = scriptedWorld(worldFolder(own.dataDirectory));
		world.setHead("acme/gone", shaOf("gone"));
		world.setDelay("inspectSource", 1500);
		const bot = scriptedBot({ database: gone, world, dataDirectory: own.dataDirectory });
		t.after(() => bot.engine.stop());
		await bot.engine.start();
		const { id } = await bot.engine.storeDelivery({
			source: "hub",
			dedupeKey: "gone",
			receivedAt: new Date(),
			body: push("acme/gone"),
		});
		const attemptsOf = async (database: Database) =>
			await database.handle.selectFrom("deliveries").selectAll().where("id", "=", id).executeTakeFirstOrThrow();
		await until("the delivery to be worked on", async () => ((await attemptsOf(gone)).attempts > 0 ? true : null));
		await gone.close();
		const next = await own.open();
		t.after(() => next.close());
		const left = await attemptsOf(next);
		assert.equal(left.outcome, "pending");
		assert.ok((left.lease_until?.getTime() ?? 0) - Date.now() < 20_000, String(left.lease_until));
	});
});
