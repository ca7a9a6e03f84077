import type { Log } from "../log.ts";

/** Whoever holds a lease and lives renews it every `RENEW_MS`; one that died is taken over after `LEASE_SECONDS`. */
export const LEASE_SECONDS = 15;
const RENEW_MS = 2000;

/** Calls `renew` again and again, one call at a time, until the returned function was called; that waits for the last. */
export function keepLease(renew: () => Promise<void>, log: Log): () => Promise<void> {
	let renewing: Promise<void> = Promise.resolve();
	const heartbeat = setInterval(() => {
		renewing = renewing.then(renew).catch((error: unknown) => log.warn("A lease could not be renewed", { error }));
	}, RENEW_MS);
	return async () => {
		clearInterval(heartbeat);
		await renewing;
	};
}
