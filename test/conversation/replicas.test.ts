import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../src/clock.ts";
import { acquireLease } from "../../src/db/leases.ts";
import { silentLog } from "../../src/log.ts";
import { leasedLock } from "../../src/server/leased-lock.ts";
import { onEveryDatabase } from "../support/databases.ts";

await onEveryDatabase((databases, name) => {
	test(`two replicas work on one thread one after the other, and a dead one's lease runs out, on ${name}`, async (t) => {
		const database = await (await databases()).open();
		t.after(() => database.close());
		const replicas = [1, 2].map(() => leasedLock({ database, clock: systemClock, log: silentLog }));
		let inside = 0;
		let most = 0;
		let done = 0;
		await Promise.all(
			replicas.flatMap((alone) =>
				[1, 2].map(() =>
					alone("owner/model#1", async () => {
						most = Math.max(most, ++inside);
						await sleep(20);
						inside--;
						done++;
					}),
				),
			),
		);
		assert.deepEqual([most, done], [1, 4]);
		const now = new Date();
		const lease = (owner: string, at: Date) =>
			acquireLease(database.handle, { name: "n", owner, now: at, until: new Date(at.getTime() + 1000) });
		assert.equal(await lease("killed", now), true);
		assert.equal(await lease("other", now), false);
		assert.equal(await lease("other", new Date(now.getTime() + 2000)), true);
	});
});
