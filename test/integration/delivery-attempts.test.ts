import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { getDelivery, insertDelivery, leaseDelivery } from "../../src/db/deliveries.ts";
import type { DeliveriesContext } from "../../src/deliveries/deliveries-context.ts";
import { processDelivery } from "../../src/deliveries/process-delivery.ts";
import { silentLog } from "../../src/log.ts";
import { onEveryDatabase, type TestDatabases } from "../support/databases.ts";
import { scriptedConfiguration, scriptedRunner, worldFolder } from "../support/scripted-bot.ts";
import { scriptedPorts, scriptedWorld } from "../support/scripted-ports.ts";

await onEveryDatabase((databases, name) => {
	describe(`a delivery that ends whoever works on it, on ${name}`, { concurrency: false }, () => {
		let own: TestDatabases;
		let database: Database;
		let handled = 0;
		before(async () => {
			own = await databases();
			database = await own.open();
		});
		after(() => database.close());

		function context(): DeliveriesContext {
			const configuration = scriptedConfiguration(own.dataDirectory, { watch: { repos: ["acme/model"] } });
			return {
				database,
				clock: systemClock,
				log: silentLog,
				configuration,
				ports: scriptedPorts(scriptedWorld(worldFolder(own.dataDirectory))),
				runner: scriptedRunner(configuration),
				newId: randomUUID,
				owner: "the test",
				wake: async () => undefined,
				handleComment: async () => {
					handled++;
					return { outcome: "accepted", detail: "answered" };
				},
			};
		}
		async function deliveryThatKilled(times: number): Promise<string> {
			const { id } = await insertDelivery(database.handle, {
				id: randomUUID(),
				source: "hub",
				dedupeKey: randomUUID(),
				receivedAt: new Date(),
				body: {
					event: { action: "create", scope: "discussion.comment" },
					repo: { type: "model", name: "acme/model" },
					discussion: { num: 1 },
					comment: { id: "0".repeat(24), author: { id: "1".repeat(24) } },
					webhook: { id: "abc", version: 3 },
				},
			});
			// A killed process has taken it and never comes back; its lease runs out.
			for (let time = 0; time < times; time++) {
				const past = new Date(Date.now() - 1000);
				assert.ok(await leaseDelivery(database.handle, { id, owner: `dead ${time}`, now: new Date(), until: past }));
			}
			return id;
		}

		test("is tried again after a few deaths", async () => {
			const id = await deliveryThatKilled(3);
			await processDelivery(context(), id);
			assert.equal((await getDelivery(database.handle, id))?.outcome, "accepted");
			assert.equal(handled, 1);
		});

		test("is given up after twelve, before it is worked on once more", async () => {
			const id = await deliveryThatKilled(12);
			handled = 0;
			await processDelivery(context(), id);
			const delivery = await getDelivery(database.handle, id);
			assert.equal(delivery?.outcome, "failed");
			assert.match(delivery?.detail ?? "", /Given up after 12 attempts, the last of which did not come to an end/);
			assert.equal(handled, 0);
		});
	});
});
