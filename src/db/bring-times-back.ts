import { TERMINAL_STATES } from "../records/job.ts";
import type { Handle } from "./database.ts";

/**
 * After a clock went back: what it wrote while it was ahead would be due, or held by somebody, only when time has caught up.
 * Everything that waits becomes due at once, and leases that end after `latestLease` end now. Returns how many rows changed.
 */
export async function bringTimesBack(handle: Handle, now: Date, latestLease: Date): Promise<number> {
	const results = await Promise.all([
		handle
			.updateTable("jobs")
			.set({ next_step_at: now })
			.where("state", "not in", [...TERMINAL_STATES, "waiting"])
			.where("next_step_at", ">", now)
			.executeTakeFirst(),
		handle.updateTable("jobs").set({ outbox_next_at: now }).where("outbox_next_at", ">", now).executeTakeFirst(),
		handle
			.updateTable("jobs")
			.set({ lease_owner: null, lease_until: null })
			.where("lease_until", ">", latestLease)
			.executeTakeFirst(),
		handle
			.updateTable("jobs")
			.set({ outbox_lease_owner: null, outbox_lease_until: null })
			.where("outbox_lease_until", ">", latestLease)
			.executeTakeFirst(),
		handle
			.updateTable("deliveries")
			.set({ next_attempt_at: now })
			.where("outcome", "=", "pending")
			.where("next_attempt_at", ">", now)
			.executeTakeFirst(),
		handle
			.updateTable("deliveries")
			.set({ lease_owner: null, lease_until: null })
			.where("lease_until", ">", latestLease)
			.executeTakeFirst(),
		handle
			.updateTable("status_discussions")
			.set({ lease_owner: null, lease_until: null })
			.where("lease_until", ">", latestLease)
			.executeTakeFirst(),
	]);
	await handle.deleteFrom("leases").where("held_until", ">", latestLease).execute();
	return results.reduce((sum, result) => sum + Number(result.numUpdatedRows), 0);
}
