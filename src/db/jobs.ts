import { type Selectable, sql, type Updateable } from "kysely";
import type { Refusal } from "../errors.ts";
import { currentTrace } from "../log.ts";
import type { RunnerEvent } from "../protocol/events.ts";
import {
	isFinished,
	type JobEventRecord,
	type JobRecord,
	type JobState,
	type JobWork,
	type StopAs,
	TERMINAL_STATES,
} from "../records/job.ts";
import type { SourceFacts } from "../records/source.ts";
import { cursorTime, decodeCursor, type Page, pageLimit, pageOf } from "./cursor.ts";
import type { Handle } from "./database.ts";
import { likePattern } from "./like-pattern.ts";
import { eventOfRow, JOB_COLUMNS, jobOfRow } from "./records-of-rows.ts";
import type { JobsTable } from "./schema.ts";
import { storableJson, storableJsonOrNull, storableText } from "./storable.ts";
import { type Audience, shownTo } from "./visibility.ts";

type JobRow = Selectable<JobsTable>;

function workOfRow(row: JobRow): JobWork {
	return {
		job: jobOfRow(row),
		stopAs: row.stop_as as StopAs | null,
		runAttempts: row.run_attempts,
		stepFailures: row.step_failures,
		facts: row.facts as SourceFacts | null,
		runnerEventsSeen: row.runner_events_seen,
		cleanupDue: row.cleanup_due,
		announceVersion: row.announce_version,
		announceDue: row.announce_version > row.announced_version,
		outboxFailures: row.outbox_failures,
		hintAt: row.hint_at,
		flavor: row.flavor,
	};
}

/** Until the transaction ends nobody else plans for this source. */
export async function lockSource(tx: Handle, sourceRepo: string): Promise<void> {
	await sql`select pg_advisory_xact_lock(hashtextextended(${`source ${sourceRepo}`}, 0))`.execute(tx);
}

async function appendEvents(
	tx: Handle,
	jobId: string,
	lastSequence: number,
	events: readonly { readonly at: Date; readonly kind: JobEventRecord["kind"]; readonly body: unknown }[],
): Promise<void> {
	if (events.length === 0) return;
	const first = lastSequence - events.length + 1;
	await tx
		.insertInto("job_events")
		.values(
			events.map((event, index) => ({
				job_id: jobId,
				sequence: first + index,
				at: event.at,
				kind: event.kind,
				body: storableJson(event.body),
			})),
		)
		.execute();
}

export async function insertJob(
	tx: Handle,
	job: {
		readonly id: string;
		readonly sourceRepo: string;
		readonly sourceSha: string;
		readonly state: "planned" | "failed";
		readonly statusText: string;
		readonly refusal: Refusal | null;
		readonly facts: SourceFacts | null;
		readonly priority?: number;
		readonly now: Date;
	},
): Promise<JobRecord> {
	// Kept, so that what is done later, by another process too, is logged under it.
	const trace = currentTrace();
	const row = await tx
		.insertInto("jobs")
		.values({
			id: job.id,
			source_repo: job.sourceRepo,
			source_sha: job.sourceSha,
			state: job.state,
			runner_handle: null,
			stop_as: null,
			refusal: storableJsonOrNull(job.refusal),
			status_text: storableText(job.statusText),
			facts: storableJsonOrNull(job.facts),
			priority: job.priority ?? 0,
			plan_text: null,
			estimate_micro_usd: null,
			held_until: null,
			next_step_at: job.now,
			lease_owner: null,
			lease_until: null,
			event_count: 1,
			announce_version: 1,
			outbox_next_at: job.now,
			outbox_lease_owner: null,
			outbox_lease_until: null,
			created_at: job.now,
			updated_at: job.now,
			started_at: null,
			finished_at: job.state === "failed" ? job.now : null,
		})
		.returningAll()
		.executeTakeFirstOrThrow();
	await appendEvents(tx, job.id, 1, [
		{
			at: job.now,
			kind: "state",
			body: {
				from: null,
				to: job.state,
				statusText: job.statusText,
				...(trace === null ? {} : { trace }),
			},
		},
	]);
	return jobOfRow(row);
}

export async function getJob(handle: Handle, id: string, audience: Audience = "operator"): Promise<JobRecord | null> {
	const row = await handle
		.selectFrom("jobs")
		.select(JOB_COLUMNS)
		.where("id", "=", id)
		.where(shownTo(audience, sql`jobs.source_repo`))
		.executeTakeFirst();
	return row === undefined ? null : jobOfRow(row);
}

/** Of these jobs those that a newer push ended, or is about to end. */
export async function listSuperseded(handle: Handle, ids: readonly string[]): Promise<ReadonlySet<string>> {
	if (ids.length === 0) return new Set();
	const rows = await handle
		.selectFrom("jobs")
		.select("id")
		.where("id", "in", [...ids])
		.where((where) => where.or([where("state", "=", "superseded"), where("stop_as", "=", "superseded")]))
		.execute();
	return new Set(rows.map(({ id }) => id));
}

/** What the log calls what a job comes of; its own id where that is not known. */
export async function traceOfJob(handle: Handle, id: string): Promise<string> {
	const row = await handle
		.selectFrom("job_events")
		.select(sql<string | null>`body->>'trace'`.as("trace"))
		.where("job_id", "=", id)
		.where("sequence", "=", 1)
		.executeTakeFirst();
	return row?.trace ?? id;
}

/** Reads a job and holds it until the transaction ends. */
export async function lockJob(tx: Handle, id: string): Promise<JobWork | null> {
	const row = await tx.selectFrom("jobs").selectAll().where("id", "=", id).forUpdate().executeTakeFirst();
	return row === undefined ? null : workOfRow(row);
}

type JobQuery = {
	readonly audience?: Audience;
	readonly state?: JobState;
	readonly sourceRepo?: string;
	readonly cursor?: string | null;
	readonly limit?: number;
};

/** Newest first. */
export async function listJobs(handle: Handle, options: JobQuery = {}): Promise<Page<JobRecord>> {
	const limit = pageLimit(options.limit, 50);
	const after = cursorTime(decodeCursor(options.cursor));
	let query = handle
		.selectFrom("jobs")
		.select(JOB_COLUMNS)
		.where(shownTo(options.audience ?? "operator", sql`jobs.source_repo`));
	if (options.state !== undefined) query = query.where("state", "=", options.state);
	if (options.sourceRepo !== undefined) query = query.where("source_repo", "=", options.sourceRepo);
	if (after !== null) query = query.where(sql<boolean>`(created_at, id) < (${after.at}, ${after.id}::uuid)`);
	const rows = await query
		.orderBy("created_at", "desc")
		.orderBy("id", "desc")
		.limit(limit + 1)
		.execute();
	return pageOf(rows, limit, jobOfRow, (row) => [row.created_at.toISOString(), row.id]);
}

export async function listJobEvents(
	handle: Handle,
	jobId: string,
	afterSequence: number,
	limit: number,
): Promise<readonly JobEventRecord[]> {
	const rows = await handle
		.selectFrom("job_events")
		.selectAll()
		.where("job_id", "=", jobId)
		.where("sequence", ">", afterSequence)
		.orderBy("sequence")
		.limit(Math.min(5000, Math.max(1, limit)))
		.execute();
	return rows.map(eventOfRow);
}

export type EventQuery = {
	/** Part of the event's text, as it stands; `null`: all. */
	readonly search: string | null;
	/** The number of the last event before them. */
	readonly after: number;
	readonly limit: number;
	/** With the evidence of single layers, thousands of events. */
	readonly layers: boolean;
};

/** Events of a job in their order, for people to read. */
export async function searchJobEvents(
	handle: Handle,
	jobId: string,
	query: EventQuery,
): Promise<readonly JobEventRecord[]> {
	let select = handle
		.selectFrom("job_events")
		.selectAll()
		.where("job_id", "=", jobId)
		.where("sequence", ">", query.after);
	if (!query.layers) select = select.where(sql<boolean>`body->>'event' is distinct from 'layer'`);
	if (query.search !== null) {
		select = select.where(sql<boolean>`body::text ilike ${likePattern(query.search)}`);
	}
	const rows = await select
		.orderBy("sequence")
		.limit(Math.min(1000, Math.max(1, query.limit)))
		.execute();
	return rows.map(eventOfRow);
}

/** The jobs of a commit, newest first. */
export async function listJobsOfCommit(
	handle: Handle,
	source: { readonly repo: string; readonly sha: string },
): Promise<readonly JobRecord[]> {
	const rows = await handle
		.selectFrom("jobs")
		.select(JOB_COLUMNS)
		.where("source_repo", "=", source.repo)
		.where("source_sha", "=", source.sha)
		.orderBy("created_at", "desc")
		.limit(50)
		.execute();
	return rows.map(jobOfRow);
}

/** Unfinished jobs on other commits of the repo that only pushes and sweeps asked for, before anything is public. */
export async function listSupersedable(
	tx: Handle,
	source: { readonly repo: string; readonly sha: string },
): Promise<readonly JobWork[]> {
	const rows = await tx
		.selectFrom("jobs")
		.selectAll()
		.where("source_repo", "=", source.repo)
		.where("source_sha", "!=", source.sha)
		.where("state", "in", ["planned", "waiting", "dispatching", "running", "ingesting", "verifying"])
		.where("stop_as", "is", null)
		.where(({ not, exists, selectFrom }) =>
			not(
				exists(
					selectFrom("requests")
						.select("requests.id")
						.whereRef("requests.job_id", "=", "jobs.id")
						.where("requests.kind", "not in", ["push", "sweep"]),
				),
			),
		)
		.execute();
	return rows.map(workOfRow);
}

/** Takes a job for `owner`, if it is in one of these states and nobody else works on it. */
export async function leaseJob(
	handle: Handle,
	request: {
		readonly id: string;
		readonly states: readonly JobState[];
		readonly owner: string;
		readonly now: Date;
		readonly until: Date;
	},
): Promise<JobWork | null> {
	const row = await handle
		.updateTable("jobs")
		.set({ lease_owner: request.owner, lease_until: request.until })
		.where("id", "=", request.id)
		.where("state", "in", request.states)
		.where("next_step_at", "<=", request.now)
		.where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", "<", request.now)]))
		.returningAll()
		.executeTakeFirst();
	return row === undefined ? null : workOfRow(row);
}

/** Makes the look at a run due now, for everybody: `false` when the job is not running this attempt. */
export async function hintRun(
	handle: Handle,
	hint: { readonly job: string; readonly fence: number; readonly now: Date },
): Promise<boolean> {
	const row = await handle
		.updateTable("jobs")
		.set((eb) => ({ hint_at: hint.now, next_step_at: eb.fn("least", [eb.ref("next_step_at"), eb.val(hint.now)]) }))
		.where("id", "=", hint.job)
		.where("fence", "=", hint.fence)
		.where("state", "=", "running")
		.returning("id")
		.executeTakeFirst();
	return row !== undefined;
}

/** Who works on a job at present, as far as the rows know. */
export async function leaseHolder(handle: Handle, id: string): Promise<string | null> {
	const row = await handle.selectFrom("jobs").select("lease_owner").where("id", "=", id).executeTakeFirst();
	return row?.lease_owner ?? null;
}

/** `held: false` when the lease went to somebody else: whatever the caller does now must not be recorded. */
export async function renewLease(
	handle: Handle,
	request: { readonly id: string; readonly owner: string; readonly until: Date },
): Promise<{ readonly held: boolean; readonly stopAs: StopAs | null }> {
	const row = await handle
		.updateTable("jobs")
		.set({ lease_until: request.until })
		.where("id", "=", request.id)
		.where("lease_owner", "=", request.owner)
		.returning("stop_as")
		.executeTakeFirst();
	return row === undefined ? { held: false, stopAs: null } : { held: true, stopAs: row.stop_as as StopAs | null };
}

/** Somebody who asked for a job's end while a step ran does not wait for that step's delay. */
function unlessStopping(at: Date) {
	return sql<Date>`case when stop_as is null then ${at}::timestamptz else least(next_step_at, ${at}::timestamptz) end`;
}

/** Ends the lease without a change of state: the same step comes again at `nextStepAt`. */
export async function releaseLease(
	handle: Handle,
	request: {
		readonly id: string;
		readonly owner: string;
		readonly nextStepAt: Date;
		readonly stepFailures: number;
		readonly statusText: string | null;
	},
): Promise<void> {
	await handle
		.updateTable("jobs")
		.set({
			lease_owner: null,
			lease_until: null,
			next_step_at: unlessStopping(request.nextStepAt),
			step_failures: request.stepFailures,
			...(request.statusText === null ? {} : { status_text: storableText(request.statusText) }),
		})
		.where("id", "=", request.id)
		.where("lease_owner", "=", request.owner)
		.execute();
}

export type JobMove = {
	readonly id: string;
	readonly from: JobState;
	readonly fence: number;
	/** The lease that the move is made under; `null` for a move that needs none to be held by anybody. */
	readonly owner: string | null;
	readonly to: JobState;
	readonly statusText: string;
	readonly now: Date;
	readonly nextStepAt?: Date;
	readonly set?: {
		readonly fence?: number;
		readonly runner?: string;
		readonly runnerHandle?: string | null;
		readonly refusal?: Refusal | null;
		readonly stopAs?: StopAs | null;
		readonly runAttempts?: number;
		readonly runnerEventsSeen?: number;
		readonly startedAt?: Date;
		readonly facts?: SourceFacts;
	};
	/** Whether the lease stays with the owner for more work in the new state. */
	readonly keepLease?: boolean;
	/** Whether a run, staging or folders may be left behind. */
	readonly cleanup?: boolean;
	/** `false` when the discussion and the replies show the new state already. */
	readonly announce?: boolean;
};

/**
 * Changes a job's state and writes the event, or does nothing and returns `null` when the job is no longer where the
 * caller believes it to be: another fence, another state, another owner.
 */
export async function moveJob(tx: Handle, move: JobMove): Promise<JobRecord | null> {
	const { set = {} } = move;
	const finished = isFinished(move.to);
	const changes: Updateable<JobsTable> = {};
	if (set.fence !== undefined) changes.fence = set.fence;
	if (set.runner !== undefined) changes.runner = set.runner;
	if (set.runnerHandle !== undefined) changes.runner_handle = set.runnerHandle;
	if (set.stopAs !== undefined) changes.stop_as = set.stopAs;
	if (set.runAttempts !== undefined) changes.run_attempts = set.runAttempts;
	if (set.runnerEventsSeen !== undefined) changes.runner_events_seen = set.runnerEventsSeen;
	if (set.startedAt !== undefined) changes.started_at = set.startedAt;
	if (set.facts !== undefined) changes.facts = storableJson(set.facts);
	if (set.refusal !== undefined) changes.refusal = storableJsonOrNull(set.refusal);
	if (move.keepLease !== true) {
		changes.lease_owner = null;
		changes.lease_until = null;
	}
	let query = tx
		.updateTable("jobs")
		.set((eb) => ({
			...changes,
			state: move.to,
			status_text: storableText(move.statusText),
			updated_at: move.now,
			finished_at: finished ? move.now : null,
			next_step_at: unlessStopping(move.nextStepAt ?? move.now),
			step_failures: 0,
			event_count: eb("event_count", "+", 1),
			...(move.announce === false ? {} : { announce_version: eb("announce_version", "+", 1) }),
			outbox_next_at: move.now,
			...(move.cleanup === undefined ? {} : { cleanup_due: move.cleanup }),
		}))
		.where("id", "=", move.id)
		.where("state", "=", move.from)
		.where("fence", "=", move.fence);
	query =
		move.owner === null
			? query.where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", "<", move.now)]))
			: query.where("lease_owner", "=", move.owner);
	const row = await query.returningAll().executeTakeFirst();
	if (row === undefined) return null;
	await appendEvents(tx, move.id, row.event_count, [
		{ at: move.now, kind: "state", body: { from: move.from, to: move.to, statusText: move.statusText } },
	]);
	return jobOfRow(row);
}

/** Adds lines to a job's history that change no state: what was checked, why a step is tried again. */
export async function appendNotes(
	tx: Handle,
	request: { readonly job: JobRecord; readonly owner: string; readonly notes: readonly string[]; readonly now: Date },
): Promise<boolean> {
	if (request.notes.length === 0) return true;
	const row = await tx
		.updateTable("jobs")
		.set((eb) => ({ event_count: eb("event_count", "+", request.notes.length), updated_at: request.now }))
		.where("id", "=", request.job.id)
		.where("fence", "=", request.job.fence)
		.where("lease_owner", "=", request.owner)
		.returning("event_count")
		.executeTakeFirst();
	if (row === undefined) return false;
	const { state } = request.job;
	await appendEvents(
		tx,
		request.job.id,
		row.event_count,
		request.notes.map((statusText) => ({
			at: request.now,
			kind: "state" as const,
			body: { from: state, to: state, statusText: statusText.slice(0, 4000) },
		})),
	);
	return true;
}

/**
 * Takes over runner events after `after`, once: `false` when the fence, the owner or the count is no longer the caller's,
 * so that events of an older attempt never enter the history.
 */
export async function appendRunnerEvents(
	tx: Handle,
	request: {
		readonly jobId: string;
		readonly fence: number;
		readonly owner: string;
		readonly after: number;
		readonly last: number;
		readonly events: readonly RunnerEvent[];
		readonly statusText: string | null;
		readonly now: Date;
	},
): Promise<boolean> {
	const row = await tx
		.updateTable("jobs")
		.set((eb) => ({
			event_count: eb("event_count", "+", request.events.length),
			runner_events_seen: request.last,
			updated_at: request.now,
			...(request.statusText === null ? {} : { status_text: storableText(request.statusText) }),
		}))
		.where("id", "=", request.jobId)
		.where("fence", "=", request.fence)
		.where("lease_owner", "=", request.owner)
		.where("runner_events_seen", "=", request.after)
		.returning("event_count")
		.executeTakeFirst();
	if (row === undefined) return false;
	await appendEvents(
		tx,
		request.jobId,
		row.event_count,
		request.events.map((event) => ({ at: new Date(event.at), kind: "runner" as const, body: event })),
	);
	return true;
}

/** Keeps a sentence that pages and answers show until the job ends. */
export async function setRemark(handle: Handle, id: string, remark: string): Promise<void> {
	await handle
		.updateTable("jobs")
		.set({ remark: storableText(remark) })
		.where("id", "=", id)
		.execute();
}

/** Asks for the end of a job; its next step sees it. */
export async function requestStop(
	handle: Handle,
	request: { readonly id: string; readonly stopAs: StopAs; readonly now: Date },
): Promise<boolean> {
	const row = await handle
		.updateTable("jobs")
		.set({ stop_as: request.stopAs, next_step_at: request.now, updated_at: request.now })
		.where("id", "=", request.id)
		.where("state", "not in", TERMINAL_STATES)
		.where("stop_as", "is", null)
		.returning("id")
		.executeTakeFirst();
	return row !== undefined;
}

/** Takes the request to end a job back: it came too late. */
export async function withdrawStop(handle: Handle, id: string, owner: string): Promise<void> {
	await handle
		.updateTable("jobs")
		.set({ stop_as: null })
		.where("id", "=", id)
		.where("lease_owner", "=", owner)
		.execute();
}

type DueJob = { readonly id: string; readonly state: JobState; readonly runner: string };

/** Unfinished jobs whose step is due and that nobody works on. */
export async function listDueJobs(handle: Handle, now: Date, limit: number): Promise<readonly DueJob[]> {
	const rows = await handle
		.selectFrom("jobs")
		.select(["id", "state", "runner"])
		.where("state", "not in", TERMINAL_STATES)
		.where("next_step_at", "<=", now)
		.where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", "<", now)]))
		.orderBy("next_step_at")
		.limit(limit)
		.execute();
	return rows.map((row) => ({ id: row.id, state: row.state as JobState, runner: row.runner }));
}

/** Runs of other processes that nobody has looked after since `before`. */
export async function listAbandonedRuns(
	handle: Handle,
	request: { readonly runner: string; readonly before: Date },
): Promise<readonly JobWork[]> {
	const rows = await handle
		.selectFrom("jobs")
		.selectAll()
		.where("state", "in", ["dispatching", "running", "ingesting"])
		.where("runner", "!=", request.runner)
		.where("next_step_at", "<", request.before)
		.where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", "<", request.before)]))
		.limit(50)
		.execute();
	return rows.map(workOfRow);
}

/** Side work: clean-up and announcements, beside whatever step the job is in. */
export async function leaseOutbox(
	handle: Handle,
	request: { readonly id: string; readonly owner: string; readonly now: Date; readonly until: Date },
): Promise<JobWork | null> {
	const row = await handle
		.updateTable("jobs")
		.set({ outbox_lease_owner: request.owner, outbox_lease_until: request.until })
		.where("id", "=", request.id)
		.where("outbox_next_at", "<=", request.now)
		.where((eb) => eb.or([eb("outbox_lease_until", "is", null), eb("outbox_lease_until", "<", request.now)]))
		.returningAll()
		.executeTakeFirst();
	return row === undefined ? null : workOfRow(row);
}

export async function renewOutboxLease(
	handle: Handle,
	request: { readonly id: string; readonly owner: string; readonly until: Date },
): Promise<void> {
	await handle
		.updateTable("jobs")
		.set({ outbox_lease_until: request.until })
		.where("id", "=", request.id)
		.where("outbox_lease_owner", "=", request.owner)
		.execute();
}

export async function settleOutbox(
	handle: Handle,
	request: {
		readonly id: string;
		readonly owner: string;
		/** The version that was announced; `null` when announcing failed or was not tried. */
		readonly announced: number | null;
		readonly cleaned: boolean;
		readonly failures: number;
		readonly nextAt: Date;
	},
): Promise<void> {
	await handle
		.updateTable("jobs")
		.set({
			outbox_lease_owner: null,
			outbox_lease_until: null,
			outbox_failures: request.failures,
			outbox_next_at: request.nextAt,
			...(request.announced === null ? {} : { announced_version: request.announced }),
			...(request.cleaned ? { cleanup_due: false } : {}),
		})
		.where("id", "=", request.id)
		.where("outbox_lease_owner", "=", request.owner)
		.execute();
}

/** A step that came too late may have left something behind after the finished job was cleaned up. */
export async function cleanUpAgain(handle: Handle, id: string, now: Date): Promise<boolean> {
	const row = await handle
		.updateTable("jobs")
		.set({ cleanup_due: true, outbox_next_at: now })
		.where("id", "=", id)
		.where("state", "in", TERMINAL_STATES)
		.returning("id")
		.executeTakeFirst();
	return row !== undefined;
}

/** Jobs whose discussion or left-overs need attention. */
export async function listDueOutboxes(handle: Handle, now: Date, limit: number): Promise<readonly string[]> {
	const rows = await handle
		.selectFrom("jobs")
		.select("id")
		.where((eb) => eb.or([eb("announce_version", ">", eb.ref("announced_version")), eb("cleanup_due", "=", true)]))
		.where("outbox_next_at", "<=", now)
		.where((eb) => eb.or([eb("outbox_lease_until", "is", null), eb("outbox_lease_until", "<", now)]))
		.orderBy("outbox_next_at")
		.limit(limit)
		.execute();
	return rows.map((row) => row.id);
}

/** After a crash nobody else can hold a lease of a database that only one process may open. */
export async function clearLeases(handle: Handle): Promise<void> {
	await handle
		.updateTable("jobs")
		.set({ lease_owner: null, lease_until: null, outbox_lease_owner: null, outbox_lease_until: null })
		.execute();
	await handle.updateTable("deliveries").set({ lease_owner: null, lease_until: null }).execute();
	await handle.updateTable("status_discussions").set({ lease_owner: null, lease_until: null }).execute();
	await handle.deleteFrom("leases").execute();
}
