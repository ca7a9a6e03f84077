import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../clock.ts";
import type { Database } from "../db/database.ts";
import { acquireLease, releaseLease } from "../db/leases.ts";
import { RetryableError } from "../errors.ts";
import { createKeyedLock, type KeyedLock } from "../keyed-lock.ts";

const LEASE_SECONDS = 120;
const WAIT_SECONDS = 20;

/**
 * Work of the same key one after the other, across all processes on the database: two replicas that hear of one comment
 * at the same moment would else both find no answer and post two.
 */
export function leasedLock(options: { readonly database: Database; readonly clock: Clock }): KeyedLock {
	const { database, clock } = options;
	const within = createKeyedLock();
	return (key, work) =>
		within(key, async () => {
			const name = `thread ${key}`;
			const owner = `${hostname()}:${process.pid}:${randomUUID()}`;
			for (let waited = 0; ; waited += 0.2) {
				const now = clock.now();
				const until = new Date(now.getTime() + LEASE_SECONDS * 1000);
				if (await acquireLease(database.handle, { name, owner, now, until })) break;
				if (waited >= WAIT_SECONDS) {
					throw new RetryableError("Another process answers in this thread.", { retryAfterSeconds: 5 });
				}
				await sleep(200);
			}
			try {
				return await work();
			} finally {
				await releaseLease(database.handle, { name, owner });
			}
		});
}
