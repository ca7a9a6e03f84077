import type { Selectable } from "kysely";
import type { Refusal } from "../errors.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { DeliveryOutcome, DeliveryRecord } from "../records/delivery.ts";
import type { JobEventRecord, JobRecord, JobState } from "../records/job.ts";
import type { ReplyTo, RequestKind, RequestRecord } from "../records/request.ts";
import type { VariantRecord, VariantState } from "../records/variant.ts";
import type { DeliveriesTable, JobEventsTable, JobsTable, RequestsTable, VariantsTable } from "./schema.ts";

/**
 * The casts are sound because only this folder writes the tables: states are checked by the tables themselves, and
 * what stands in jsonb columns was parsed before it was stored.
 */

/** What lists and pages read of a job: its facts and what keeps it going are more than half of the row. */
export const JOB_COLUMNS = [
	"id",
	"source_repo",
	"source_sha",
	"state",
	"fence",
	"runner",
	"runner_handle",
	"stop_as",
	"refusal",
	"status_text",
	"remark",
	"plan_text",
	"planned_seconds",
	"held_until",
	"created_at",
	"updated_at",
	"started_at",
	"finished_at",
] as const;

export function jobOfRow(row: Pick<Selectable<JobsTable>, (typeof JOB_COLUMNS)[number]>): JobRecord {
	return {
		id: row.id,
		sourceRepo: row.source_repo,
		sourceSha: row.source_sha,
		state: row.state as JobState,
		fence: row.fence,
		runner: row.runner,
		runnerHandle: row.runner_handle,
		cancelRequested: row.stop_as !== null,
		refusal: row.refusal as Refusal | null,
		statusText: row.status_text,
		remark: row.remark,
		planText: row.plan_text,
		plannedSeconds: row.planned_seconds,
		heldUntil: row.held_until,
		createdAt: row.created_at,
		updatedAt: row.updated_at,
		startedAt: row.started_at,
		finishedAt: row.finished_at,
	};
}

export function variantOfRow(row: Omit<Selectable<VariantsTable>, "memory_bytes">): VariantRecord {
	return {
		id: row.id,
		sourceRepo: row.source_repo,
		sourceSha: row.source_sha,
		recipe: row.recipe,
		recipeHash: row.recipe_hash,
		jobId: row.job_id,
		state: row.state as VariantState,
		targetRepo: row.target_repo,
		manifest: row.manifest as Manifest | null,
		targetSha: row.target_sha,
		refusal: row.refusal as Refusal | null,
		reusedFrom: row.reused_from,
		isCurrent: row.current,
		createdAt: row.created_at,
		publishedAt: row.published_at,
	};
}

export function requestOfRow(row: Selectable<RequestsTable>): RequestRecord {
	return {
		id: row.id,
		kind: row.kind as RequestKind,
		sourceRepo: row.source_repo,
		sourceSha: row.source_sha,
		recipes: row.recipes as readonly string[],
		requester: row.requester,
		replyTo: row.reply_to as ReplyTo | null,
		jobId: row.job_id,
		refusal: row.refusal as Refusal | null,
		createdAt: row.created_at,
	};
}

export function deliveryOfRow(row: Selectable<DeliveriesTable>): DeliveryRecord {
	return {
		id: row.id,
		source: row.source as DeliveryRecord["source"],
		dedupeKey: row.dedupe_key,
		receivedAt: row.received_at,
		outcome: row.outcome as DeliveryOutcome,
		detail: row.detail,
		body: row.body,
	};
}

export function eventOfRow(row: Selectable<JobEventsTable>): JobEventRecord {
	return {
		jobId: row.job_id,
		sequence: row.sequence,
		at: row.at,
		kind: row.kind as JobEventRecord["kind"],
		body: row.body,
	};
}
