import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { type Clock, systemClock } from "../../src/clock.ts";
import { getDelivery, insertDelivery } from "../../src/db/deliveries.ts";
import { silentLog } from "../../src/log.ts";
import { createMessageQueue } from "../../src/queue/message-queue.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { engineWithRequests } from "../support/engine-with-requests.ts";
import { scriptedConfiguration, scriptedRunner, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { scriptedPorts, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

/** A bot by a clock that may be wrong. */
async function botBy(clock: Clock, databases: () => Promise<TestDatabases>) {
	const own = await databases();
	const database = await own.open();
	const world = scriptedWorld(worldFolder(own.dataDirectory));
	const configuration = scriptedConfiguration(own.dataDirectory);
	const engine = engineWithRequests({
		database,
		configuration,
		ports: scriptedPorts(world),
		runner: scriptedRunner(configuration),
		superviseIntervalMs: 200,
		clock,
	});
	return { database, world, engine };
}

await onEveryDatabase((databases, name) => {
	test(`what a clock wrote while it was an hour ahead is done when it is right again, on ${name}`, async (t) => {
		let ahead = 3_600_000;
		const clock: Clock = { now: () => new Date(Date.now() + ahead) };
		const { database, world, engine } = await botBy(clock, databases);
		t.after(() => engine.stop());
		const ask = async (repo: string): Promise<string> => {
			world.setHead(repo, shaOf(repo));
			const outcome = await engine.recordRequest({
				kind: "push",
				sourceRepo: repo,
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: repo,
			});
			assert.ok(outcome.kind === "planned");
			return outcome.job.id;
		};
		// Before the start: nobody works on it while the clock is wrong.
		const early = await ask("acme/early");
		ahead = 0;
		await engine.start();
		await untilState(database, early, ["done"]);

		// While it runs: the first try fails, and the second is put off from the wrong hour.
		ahead = 3_600_000;
		world.setFailures("fetchSource", 1);
		world.setDelay("fetchSource", 300);
		const late = await ask("acme/late");
		await until("the failure", async () => {
			const row = await database.handle
				.selectFrom("jobs")
				.select(["step_failures", "next_step_at"])
				.where("id", "=", late)
				.executeTakeFirstOrThrow();
			return row.step_failures > 0 && row.next_step_at.getTime() > Date.now() + 3_000_000 ? true : null;
		});
		ahead = 0;
		await untilState(database, late, ["done"]);
	});

	test(`a message that a clock put off keeps nothing waiting once it is right again, on ${name}`, async (t) => {
		let ahead = 0;
		const clock: Clock = { now: () => new Date(Date.now() + ahead) };
		const { database, engine } = await botBy(clock, databases);
		const other = createMessageQueue({ database, log: silentLog });
		t.after(async () => {
			await other.stop(1000);
			await engine.stop();
		});
		await other.start(["deliver"]);
		const deliver = async (): Promise<string> => {
			const id = randomUUID();
			const body = { event: { action: "update", scope: "repo.content" }, repo: { type: "dataset", name: "acme/d" } };
			await insertDelivery(database.handle, { id, source: "hub", dedupeKey: id, receivedAt: systemClock.now(), body });
			await other.send("deliver", id, { deliveryId: id }, 3600);
			return id;
		};
		const settled = (id: string) =>
			until("the delivery", async () =>
				(await getDelivery(database.handle, id))?.outcome === "pending" ? null : true,
			);
		// Before the start, and while it runs.
		const early = await deliver();
		await engine.start();
		await settled(early);
		ahead = 3_600_000;
		await setTimeout(500);
		const late = await deliver();
		ahead = 0;
		await settled(late);
	});
});
