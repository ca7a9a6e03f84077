import type { Refusal } from "../errors.ts";
import type { ReplyTo, RequestKind, RequestRecord } from "../records/request.ts";
import type { Handle } from "./database.ts";
import { requestOfRow } from "./records-of-rows.ts";
import { storableJson, storableJsonOrNull, storableText } from "./storable.ts";

export async function insertRequest(
	handle: Handle,
	request: {
		readonly id: string;
		readonly kind: RequestKind;
		readonly dedupeKey: string;
		readonly sourceRepo: string;
		readonly sourceSha: string | null;
		readonly recipes: readonly string[];
		readonly requester: string | null;
		readonly replyTo: ReplyTo | null;
		readonly jobId: string | null;
		readonly refusal: Refusal | null;
		readonly now: Date;
	},
): Promise<RequestRecord> {
	const row = await handle
		.insertInto("requests")
		.values({
			id: request.id,
			kind: request.kind,
			dedupe_key: storableText(request.dedupeKey),
			source_repo: request.sourceRepo,
			source_sha: request.sourceSha,
			recipes: storableJson(request.recipes),
			requester: request.requester === null ? null : storableText(request.requester),
			reply_to: storableJsonOrNull(request.replyTo),
			job_id: request.jobId,
			refusal: storableJsonOrNull(request.refusal),
			created_at: request.now,
		})
		.returningAll()
		.executeTakeFirstOrThrow();
	return requestOfRow(row);
}

export async function findRequestByKey(handle: Handle, dedupeKey: string): Promise<RequestRecord | null> {
	const row = await handle
		.selectFrom("requests")
		.selectAll()
		.where("dedupe_key", "=", storableText(dedupeKey))
		.executeTakeFirst();
	return row === undefined ? null : requestOfRow(row);
}

export async function listRequestsOfJob(handle: Handle, jobId: string): Promise<readonly RequestRecord[]> {
	const rows = await handle
		.selectFrom("requests")
		.selectAll()
		.where("job_id", "=", jobId)
		.orderBy("created_at")
		.limit(500)
		.execute();
	return rows.map(requestOfRow);
}

/** Remembers which comment answers the request, so that it is edited from then on. */
export async function setReplyComment(handle: Handle, request: RequestRecord, replyCommentId: string): Promise<void> {
	if (request.replyTo === null) return;
	await handle
		.updateTable("requests")
		.set({ reply_to: storableJson({ ...request.replyTo, replyCommentId }) })
		.where("id", "=", request.id)
		.execute();
}

/** Requests by comment since a time; `requester`: of one person, whatever the capitals, `null`: of all. */
export async function countCommentRequests(
	handle: Handle,
	query: { readonly requester: string | null; readonly since: Date },
): Promise<number> {
	let counted = handle
		.selectFrom("requests")
		.select(({ fn }) => fn.countAll<string>().as("count"))
		.where("kind", "=", "comment")
		.where("created_at", ">=", query.since);
	if (query.requester !== null) {
		const name = storableText(query.requester.toLowerCase());
		counted = counted.where(({ eb, fn, val }) => eb(fn<string>("lower", ["requester"]), "=", val(name)));
	}
	const row = await counted.executeTakeFirstOrThrow();
	return Number(row.count);
}
