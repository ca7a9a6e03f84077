import { sql } from "kysely";
import { TERMINAL_STATES } from "../records/job.ts";
import type { Handle } from "./database.ts";

/** Rows of one delete: more would hold up whoever writes to the table. */
const BATCH = 5000;

type Commit = { readonly repo: string; readonly sha: string };

function commitOfRow(row: { source_repo: string; source_sha: string }): Commit {
	return { repo: row.source_repo, sha: row.source_sha };
}

/** Commits that an unfinished job is on. */
export async function listUnfinishedCommits(handle: Handle): Promise<readonly Commit[]> {
	const rows = await handle
		.selectFrom("jobs")
		.select(["source_repo", "source_sha"])
		.distinct()
		.where("state", "not in", TERMINAL_STATES)
		.execute();
	return rows.map(commitOfRow);
}

export async function hasUnfinishedJob(handle: Handle, commit: Commit): Promise<boolean> {
	const row = await handle
		.selectFrom("jobs")
		.select("id")
		.where("source_repo", "=", commit.repo)
		.where("source_sha", "=", commit.sha)
		.where("state", "not in", TERMINAL_STATES)
		.limit(1)
		.executeTakeFirst();
	return row !== undefined;
}

/** Whether the source was private when it was last looked at. */
export async function isPrivateSource(handle: Handle, repo: string): Promise<boolean> {
	const row = await handle
		.selectFrom("source_visibility")
		.select("private")
		.where("repo", "=", repo)
		.executeTakeFirst();
	return row?.private === true;
}

/** Commits of private sources that there ever was a job on. */
export async function listPrivateCommits(handle: Handle): Promise<readonly Commit[]> {
	const rows = await handle
		.selectFrom("jobs")
		.innerJoin("source_visibility", "source_visibility.repo", "jobs.source_repo")
		.select(["jobs.source_repo", "jobs.source_sha"])
		.distinct()
		.where("source_visibility.private", "=", true)
		.execute();
	return rows.map(commitOfRow);
}

/** Folders of sketches that an unfinished job of their repo may start from, or that are still to be uploaded. */
export async function listSketchFoldersInUse(handle: Handle): Promise<readonly string[]> {
	const rows = await handle
		.selectFrom("sketches")
		.select("directory")
		.where((eb) =>
			eb.or([
				eb("store_at", "is not", null),
				eb.exists(
					eb
						.selectFrom("jobs")
						.select("jobs.id")
						.whereRef("jobs.source_repo", "=", "sketches.source_repo")
						.where("jobs.state", "not in", TERMINAL_STATES),
				),
			]),
		)
		.execute();
	return rows.map((row) => row.directory);
}

/** Deletes batch by batch until one is not full; how many rows went. */
async function inBatches(removeBatch: () => Promise<bigint>): Promise<number> {
	let removed = 0;
	for (;;) {
		const batch = Number(await removeBatch());
		removed += batch;
		if (batch < BATCH) return removed;
	}
}

function earlier(one: Date, other: Date): Date {
	return one.getTime() < other.getTime() ? one : other;
}

function newer(one: Date, other: Date): Date {
	return one.getTime() > other.getTime() ? one : other;
}

/**
 * Deletes settled deliveries from before `before`, and from before `floor` all but the newest `rows`: after `floor` the
 * same delivery may still be sent again, and is known by its row.
 */
export async function pruneDeliveries(
	handle: Handle,
	limits: { readonly before: Date; readonly rows: number; readonly floor: Date },
): Promise<number> {
	const boundary = await handle
		.selectFrom("deliveries")
		.select("received_at")
		.where("outcome", "!=", "pending")
		.orderBy("received_at", "desc")
		.offset(limits.rows)
		.limit(1)
		.executeTakeFirst();
	// The boundary's own row is one too many.
	const tooMany = boundary === undefined ? null : new Date(boundary.received_at.getTime() + 1);
	const before = tooMany === null ? limits.before : newer(limits.before, earlier(tooMany, limits.floor));
	return await inBatches(async () => {
		const { numDeletedRows } = await handle
			.deleteFrom("deliveries")
			.where("id", "in", (eb) =>
				eb
					.selectFrom("deliveries")
					.select("id")
					.where("outcome", "!=", "pending")
					.where("received_at", "<", before)
					.orderBy("received_at")
					.limit(BATCH),
			)
			.executeTakeFirstOrThrow();
		return numDeletedRows;
	});
}

/**
 * Deletes what runs told of themselves, for jobs that ended before `before` and for all but the last ended ones whose
 * events come to `rows`. The job's changes of state stay.
 */
export async function pruneRunnerEvents(
	handle: Handle,
	limits: { readonly before: Date; readonly rows: number },
): Promise<number> {
	const { rows } = await sql<{ finished_at: Date }>`select finished_at from (
			select finished_at, sum(event_count) over (order by finished_at desc, id) as total
			from jobs where finished_at is not null
		) as ended where total > ${limits.rows} order by finished_at desc limit 1`.execute(handle);
	const boundary = rows[0]?.finished_at;
	const before = boundary === undefined ? limits.before : newer(limits.before, new Date(boundary.getTime() + 1));
	return await inBatches(async () => {
		const { numAffectedRows } = await sql`delete from job_events where (job_id, sequence) in (
				select event.job_id, event.sequence from job_events as event
				join jobs on jobs.id = event.job_id
				where event.kind = 'runner' and jobs.finished_at < ${before} limit ${sql.lit(BATCH)}
			)`.execute(handle);
		return numAffectedRows ?? 0n;
	});
}

/** Events that runs elsewhere sent, of jobs that have ended, leases that ended and old counts: nobody reads them any more. */
export async function pruneLeftovers(handle: Handle, before: Date): Promise<void> {
	await handle
		.deleteFrom("pushed_events")
		.where("job_id", "in", (eb) => eb.selectFrom("jobs").select("id").where("finished_at", "<", before))
		.execute();
	await handle.deleteFrom("leases").where("held_until", "<", before).execute();
	await handle.deleteFrom("stranger_answers").where("at", "<", before).execute();
}

export async function countKeptRows(handle: Handle): Promise<{ readonly deliveries: number; readonly events: number }> {
	const { rows } = await sql<{ deliveries: number; events: number }>`select
		(select count(*)::int from deliveries) as deliveries, (select count(*)::int from job_events) as events`.execute(
		handle,
	);
	return rows[0] ?? { deliveries: 0, events: 0 };
}

const PROBE = "readiness probe";

/** Writes a row, as a delivery would be: throws where the database is full, or takes no writes. */
export async function probeWrite(handle: Handle, now: Date): Promise<void> {
	const row = { owner: now.toISOString(), held_until: now };
	await handle
		.insertInto("leases")
		.values({ name: PROBE, ...row })
		.onConflict((conflict) => conflict.column("name").doUpdateSet(row))
		.execute();
}
