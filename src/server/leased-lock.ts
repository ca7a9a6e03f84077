import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../clock.ts";
import type { Database } from "../db/database.ts";
import { acquireLease, releaseLease } from "../db/leases.ts";
import { RetryableError } from "../errors.ts";
import { keepLease, LEASE_SECONDS } from "../jobs/keep-lease.ts";
import { createKeyedLock, type KeyedLock } from "../keyed-lock.ts";
import type { Log } from "../log.ts";

const WAIT_SECONDS = 20;

/**
 * Work of the same key one after the other, across all processes on the database: two replicas that hear of one comment
 * at the same moment would else both find no answer and post two.
 */
export function leasedLock(options: {
	readonly database: Database;
	readonly clock: Clock;
	readonly log: Log;
}): KeyedLock {
	const { database, clock, log } = options;
	const within = createKeyedLock();
	return (key, work) =>
		within(key, async () => {
			const name = `thread ${key}`;
			const owner = `${hostname()}:${process.pid}:${randomUUID()}`;
			const acquire = () => {
				const now = clock.now();
				const until = new Date(now.getTime() + LEASE_SECONDS * 1000);
				return acquireLease(database.handle, { name, owner, now, until });
			};
			for (let waited = 0; ; waited += 0.2) {
				if (await acquire()) break;
				if (waited >= WAIT_SECONDS) {
					throw new RetryableError("Another process answers in this thread.", { retryAfterSeconds: 5 });
				}
				await sleep(200);
			}
			const release = keepLease(async () => void (await acquire()), log);
			try {
				return await work();
			} finally {
				await release();
				await releaseLease(database.handle, { name, owner }).catch((error: unknown) => {
					// What was done is done; the lease runs out.
					log.warn("A thread's lease could not be given back", { name, error });
				});
			}
		});
}
