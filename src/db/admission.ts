import { sql } from "kysely";
import type { Handle } from "./database.ts";
import { type Audience, shownTo } from "./visibility.ts";

/** Runs of a namespace in this time count against its turn. */
const TURN_HOURS = 24;
/** A job that waits so long moves up one step of priority within its namespace. */
const AGEING_HOURS = 6;

/** Until the transaction ends nobody else starts a run: slots, turns and budgets are counted under it. */
export async function lockAdmission(tx: Handle): Promise<void> {
	await sql`select pg_advisory_xact_lock(hashtextextended('admission', 0))`.execute(tx);
}

/**
 * Jobs that may start, the next one first. Namespaces take turns: whoever had fewer runs of late comes first, however
 * many jobs another one queues. Within a namespace priority counts, then age; waiting raises the priority, so that
 * nothing waits for ever.
 */
function line(now: Date) {
	const at = sql`${now}::timestamptz`;
	return sql`
		with candidate as (
			select id, namespace, created_at,
				priority + floor(extract(epoch from (${at} - created_at)) / ${sql.lit(AGEING_HOURS * 3600)}) as urgency
			from jobs
			where state in ('planned', 'waiting') and stop_as is null
				and (held_until is null or held_until <= ${at})
				and (state = 'waiting' or next_step_at <= ${at})
		), served as (
			select namespace, count(*) as runs from jobs
			where started_at > ${at} - interval '${sql.lit(TURN_HOURS)} hours' group by namespace
		), turn as (
			select candidate.id, candidate.created_at, coalesce(served.runs, 0) + row_number() over (
				partition by candidate.namespace order by candidate.urgency desc, candidate.created_at, candidate.id
			) as number
			from candidate left join served on served.namespace = candidate.namespace
		)
		select id, row_number() over (order by number, created_at, id)::int as position from turn`;
}

/** How many jobs come before this one; `null` when it is not in line. */
export async function jobsAhead(tx: Handle, id: string, now: Date): Promise<number | null> {
	const { rows } = await sql<{ position: number }>`
		select position from (${line(now)}) as line where id = ${id}::uuid`.execute(tx);
	const [row] = rows;
	return row === undefined ? null : row.position - 1;
}

/** Where a job stands in line, and the job whose end or start brings it forward. */
export type QueuePlace = {
	readonly ahead: number;
	/** The one before it in line; for the first, the run that began first. `null`: none, or not for these eyes. */
	readonly front: { readonly id: string; readonly sourceRepo: string; readonly isRunning: boolean } | null;
};

/** A job's place in line; `null` when it is not in line. */
export async function queuePlace(
	handle: Handle,
	id: string,
	now: Date,
	audience: Audience,
): Promise<QueuePlace | null> {
	const ahead = await jobsAhead(handle, id, now);
	if (ahead === null) return null;
	const { rows } = await (ahead > 0
		? sql<{ id: string; source_repo: string }>`
			select jobs.id, jobs.source_repo from (${line(now)}) as line join jobs on jobs.id = line.id
			where line.position = ${ahead} and ${shownTo(audience, sql`jobs.source_repo`)}`
		: sql<{ id: string; source_repo: string }>`
			select first.id, first.source_repo from (
				select id, source_repo from jobs where state in ('dispatching', 'running') order by started_at, id limit 1
			) as first where ${shownTo(audience, sql`first.source_repo`)}`
	).execute(handle);
	const [row] = rows;
	return {
		ahead,
		front: row === undefined ? null : { id: row.id, sourceRepo: row.source_repo, isRunning: ahead === 0 },
	};
}

export type LinePlace = { readonly id: string; readonly sourceRepo: string; readonly position: number };

/** Jobs that may start, the next one first. */
export async function listLine(handle: Handle, now: Date, limit: number): Promise<readonly LinePlace[]> {
	const { rows } = await sql<{ id: string; source_repo: string; position: number }>`
		select jobs.id, jobs.source_repo, line.position from (${line(now)}) as line join jobs on jobs.id = line.id
		order by line.position limit ${sql.lit(limit)}`.execute(handle);
	return rows.map((row) => ({ id: row.id, sourceRepo: row.source_repo, position: row.position }));
}

/** What jobs may have cost that began since then: every attempt is paid for. */
export async function spentSince(handle: Handle, since: Date): Promise<number> {
	const { rows } = await sql<{ spent: string }>`
		select coalesce(sum(estimate_micro_usd * greatest(fence, 1)), 0)::text as spent from jobs
		where started_at >= ${since}`.execute(handle);
	return Number(rows[0]?.spent ?? 0);
}

/** Lets the first `limit` waiting jobs look for a free runner again. */
export async function wakeNextInLine(handle: Handle, now: Date, limit: number): Promise<readonly string[]> {
	if (limit <= 0) return [];
	const { rows } = await sql<{ id: string }>`
		update jobs set next_step_at = ${now} where state = 'waiting' and next_step_at > ${now} and id in (
			select id from (${line(now)}) as line where position <= ${limit}
		) returning id`.execute(handle);
	return rows.map((row) => row.id);
}

export async function countRuns(tx: Handle, runner: string, exceptJob: string | null): Promise<number> {
	let query = tx
		.selectFrom("jobs")
		.select(sql<number>`count(*)::int`.as("count"))
		.where("runner", "=", runner)
		.where("state", "in", ["dispatching", "running"]);
	if (exceptJob !== null) query = query.where("id", "!=", exceptJob);
	return (await query.executeTakeFirstOrThrow()).count;
}

/** What bars a job, as numbers: its own estimate, what was spent since `monthStart`, its namespace's runs since `dayStart`. */
export type Admission = {
	readonly estimateMicroUsd: number;
	readonly approved: boolean;
	readonly spentMicroUsd: number;
	readonly namespace: string;
	readonly namespaceRuns: number;
	/** When the oldest of these runs began. */
	readonly oldestRunAt: Date | null;
};

export async function readAdmission(
	tx: Handle,
	request: { readonly id: string; readonly monthStart: Date; readonly dayStart: Date },
): Promise<Admission> {
	const { rows } = await sql<{
		namespace: string;
		estimate: string | null;
		approved: boolean;
		runs: number;
		oldest: Date | null;
	}>`
		select job.namespace, job.estimate_micro_usd::text as estimate, job.approved,
			(select count(*)::int from jobs as other where other.namespace = job.namespace
				and other.started_at > ${request.dayStart} and other.id != job.id) as runs,
			(select min(started_at) from jobs as other where other.namespace = job.namespace
				and other.started_at > ${request.dayStart} and other.id != job.id) as oldest
		from jobs as job where job.id = ${request.id}::uuid`.execute(tx);
	const [row] = rows;
	if (row === undefined) throw new Error(`There is no job ${request.id}.`);
	return {
		estimateMicroUsd: Number(row.estimate ?? 0),
		approved: row.approved,
		spentMicroUsd: await spentSince(tx, request.monthStart),
		namespace: row.namespace,
		namespaceRuns: row.runs,
		oldestRunAt: row.oldest,
	};
}

/** Takes a job out of line until `until`, or puts it back. */
export async function holdJob(tx: Handle, id: string, until: Date | null): Promise<void> {
	await tx.updateTable("jobs").set({ held_until: until }).where("id", "=", id).execute();
}

/** Lets a job run that waits for approval; `false` when it has started or ended. */
export async function approveJob(handle: Handle, id: string, now: Date): Promise<boolean> {
	const row = await handle
		.updateTable("jobs")
		.set({ approved: true, held_until: null, next_step_at: now })
		.where("id", "=", id)
		.where("state", "in", ["planned", "waiting"])
		.returning("id")
		.executeTakeFirst();
	return row !== undefined;
}

export async function setJobEstimate(
	tx: Handle,
	request: {
		readonly id: string;
		readonly text: string;
		readonly microUsd: number | null;
		readonly seconds: number | null;
		readonly flavor: string | null;
	},
): Promise<void> {
	await tx
		.updateTable("jobs")
		.set({
			plan_text: request.text.slice(0, 4000),
			estimate_micro_usd: request.microUsd,
			planned_seconds: request.seconds,
			flavor: request.flavor,
		})
		.where("id", "=", request.id)
		.execute();
}
