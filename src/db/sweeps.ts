import type { Handle } from "./database.ts";

/** Whether this caller is the one that does the slot's work: of all replicas exactly one is told `true`. */
export async function claimSweepSlot(handle: Handle, slot: string, now: Date): Promise<boolean> {
	const row = await handle
		.insertInto("sweep_slots")
		.values({ slot, claimed_at: now })
		.onConflict((conflict) => conflict.column("slot").doNothing())
		.returning("slot")
		.executeTakeFirst();
	return row !== undefined;
}

export async function releaseSweepSlot(handle: Handle, slot: string): Promise<void> {
	await handle.deleteFrom("sweep_slots").where("slot", "=", slot).execute();
}

export async function hasSweepSlot(handle: Handle, slot: string): Promise<boolean> {
	const row = await handle.selectFrom("sweep_slots").select("slot").where("slot", "=", slot).executeTakeFirst();
	return row !== undefined;
}

/** Forgets the slots of long ago; those of `keep` stand for good. */
export async function forgetSweepSlots(handle: Handle, before: Date, keep: string): Promise<void> {
	await handle
		.deleteFrom("sweep_slots")
		.where("claimed_at", "<", before)
		.where("slot", "not like", `${keep}%`)
		.execute();
}

export async function getKnownHead(handle: Handle, repo: string): Promise<string | null> {
	const row = await handle.selectFrom("known_heads").select("sha").where("repo", "=", repo).executeTakeFirst();
	return row?.sha ?? null;
}

/** With the moment from which it was the newest commit. */
export async function getNewestCommit(
	handle: Handle,
	repo: string,
): Promise<{ readonly sha: string; readonly since: Date } | null> {
	const row = await handle
		.selectFrom("known_heads")
		.select(["sha", "seen_at"])
		.where("repo", "=", repo)
		.executeTakeFirst();
	return row === undefined ? null : { sha: row.sha, since: row.seen_at };
}

export async function setKnownHead(handle: Handle, repo: string, sha: string, now: Date): Promise<void> {
	await handle
		.insertInto("known_heads")
		.values({ repo, sha, seen_at: now })
		.onConflict((conflict) => conflict.column("repo").doUpdateSet({ sha, seen_at: now }))
		.execute();
}
