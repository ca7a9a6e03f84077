import type { RunnerEvent } from "../protocol/events.ts";
import type { Attempt } from "../records/attempt.ts";
import type { Handle } from "./database.ts";
import { storableJson } from "./storable.ts";

type Numbered = { readonly number: number; readonly event: RunnerEvent };

/** Keeps events of an attempt that is under way, each number once; `false` when it is not. */
export async function insertPushedEvents(
	handle: Handle,
	attempt: Attempt,
	events: readonly Numbered[],
): Promise<boolean> {
	const job = await handle
		.selectFrom("jobs")
		.select("id")
		.where("id", "=", attempt.job)
		.where("fence", "=", attempt.fence)
		.where("state", "in", ["dispatching", "running"])
		.executeTakeFirst();
	if (job === undefined) return false;
	if (events.length === 0) return true;
	const rows = events.map(({ number, event }) => ({
		job_id: attempt.job,
		fence: attempt.fence,
		number,
		body: storableJson(event),
	}));
	await handle
		.insertInto("pushed_events")
		.values(rows)
		.onConflict((conflict) => conflict.columns(["job_id", "fence", "number"]).doNothing())
		.execute();
	return true;
}

/** Bodies as they were stored, from the `after`th on, at most `limit` of them. */
export async function listPushedEvents(
	handle: Handle,
	attempt: Attempt,
	after: number,
	limit: number,
): Promise<readonly { readonly number: number; readonly body: unknown }[]> {
	return await handle
		.selectFrom("pushed_events")
		.select(["number", "body"])
		.where("job_id", "=", attempt.job)
		.where("fence", "=", attempt.fence)
		.where("number", ">", after)
		.orderBy("number")
		.limit(limit)
		.execute();
}

export async function deletePushedEvents(handle: Handle, attempt: Attempt): Promise<void> {
	await handle
		.deleteFrom("pushed_events")
		.where("job_id", "=", attempt.job)
		.where("fence", "<=", attempt.fence)
		.execute();
}

/** The key of that name, which all replicas share; whoever asks first makes it. */
export async function signingKey(handle: Handle, name: string, candidate: string, now: Date): Promise<string> {
	await handle
		.insertInto("signing_keys")
		.values({ name, key: candidate, created_at: now })
		.onConflict((conflict) => conflict.column("name").doNothing())
		.execute();
	const row = await handle.selectFrom("signing_keys").select("key").where("name", "=", name).executeTakeFirstOrThrow();
	return row.key;
}
