import { sql } from "kysely";
import type { DeliveryOutcome } from "../records/delivery.ts";
import type { JobState } from "../records/job.ts";
import type { VariantState } from "../records/variant.ts";
import type { Handle } from "./database.ts";

export type Counts = {
	readonly deliveriesByOutcome: Readonly<Partial<Record<DeliveryOutcome, number>>>;
	readonly jobsByState: Readonly<Partial<Record<JobState, number>>>;
	readonly variantsByState: Readonly<Partial<Record<VariantState, number>>>;
	/** Seconds that the oldest due delivery or step has waited. */
	readonly oldestDueSeconds: number;
};

function byName<Name extends string>(rows: readonly { name: string; count: number }[]): Partial<Record<Name, number>> {
	const counts: Partial<Record<string, number>> = {};
	for (const row of rows) counts[row.name] = row.count;
	return counts as Partial<Record<Name, number>>;
}

export async function countEverything(handle: Handle, now: Date): Promise<Counts> {
	const deliveries = await handle
		.selectFrom("deliveries")
		.select(["outcome as name", sql<number>`count(*)::int`.as("count")])
		.groupBy("outcome")
		.execute();
	const jobs = await handle
		.selectFrom("jobs")
		.select(["state as name", sql<number>`count(*)::int`.as("count")])
		.groupBy("state")
		.execute();
	const variants = await handle
		.selectFrom("variants")
		.select(["state as name", sql<number>`count(*)::int`.as("count")])
		.groupBy("state")
		.execute();
	const { rows } = await sql<{ oldest: Date | null }>`select min(due) as oldest from (
		select next_attempt_at as due from deliveries where outcome = 'pending'
		union all
		select next_step_at from jobs where state not in ('done', 'failed', 'cancelled', 'superseded', 'waiting')
	) as work`.execute(handle);
	const oldest = rows[0]?.oldest ?? null;
	return {
		deliveriesByOutcome: byName<DeliveryOutcome>(deliveries),
		jobsByState: byName<JobState>(jobs),
		variantsByState: byName<VariantState>(variants),
		oldestDueSeconds: oldest === null ? 0 : Math.max(0, (now.getTime() - oldest.getTime()) / 1000),
	};
}
