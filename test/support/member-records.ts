import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import type { Database } from "../../src/db/database.ts";
import { insertDelivery, leaseDelivery, settleDelivery } from "../../src/db/deliveries.ts";
import { insertJob, moveJob } from "../../src/db/jobs.ts";
import { insertRequest } from "../../src/db/requests.ts";
import { insertVariant, publishVariantRow, stageVariant } from "../../src/db/variants.ts";
import { setSourceVisibility } from "../../src/db/visibility.ts";
import type { JobRecord, JobState } from "../../src/records/job.ts";
import { recipeOf } from "./recipe-of.ts";
import { makeManifest } from "./web-fixtures.ts";

const SHA = "a".repeat(40);

/** A job on a source, as its step left it. */
export async function keepJob(
	database: Database,
	repo: string,
	options: { readonly state?: JobState; readonly requester?: string; readonly isPrivate?: boolean } = {},
): Promise<JobRecord> {
	const { handle } = database;
	const now = new Date();
	const id = randomUUID();
	const job = await insertJob(handle, {
		id,
		sourceRepo: repo,
		sourceSha: SHA,
		state: "planned",
		statusText: "Planned.",
		refusal: null,
		facts: null,
		now,
	});
	await setSourceVisibility(handle, { repo, private: options.isPrivate ?? false, gated: "no", now });
	if (options.requester !== undefined) {
		await insertRequest(handle, {
			id: randomUUID(),
			kind: "comment",
			dedupeKey: randomUUID(),
			sourceRepo: repo,
			sourceSha: SHA,
			recipes: ["gguf:q4_0"],
			requester: options.requester,
			replyTo: null,
			jobId: id,
			refusal: null,
			now,
		});
	}
	const { state = "planned" } = options;
	if (state === "planned") return job;
	const moved = await moveJob(handle, {
		id,
		from: "planned",
		to: state,
		fence: job.fence,
		owner: null,
		statusText: `It is ${state}.`,
		now,
	});
	assert.ok(moved !== null);
	return moved;
}

/** A delivery about a repo that failed. */
export async function keepFailedDelivery(
	database: Database,
	repo: string,
	detail = "The Hub did not answer.",
): Promise<string> {
	const { handle } = database;
	const id = randomUUID();
	const now = new Date();
	const body = { event: { action: "update", scope: "repo.content" }, repo: { type: "model", name: repo } };
	await insertDelivery(handle, { id, source: "hub", dedupeKey: id, receivedAt: now, body });
	await leaseDelivery(handle, { id, owner: "x", now, until: new Date(now.getTime() + 1000) });
	await settleDelivery(handle, { id, owner: "x", outcome: "failed", detail, nextAttemptAt: now });
	return id;
}

/** Something published of a job's source. */
export async function keepVariant(database: Database, job: JobRecord, state: "published" | "wanted"): Promise<string> {
	const { handle } = database;
	const now = new Date();
	const variant = await insertVariant(handle, {
		id: randomUUID(),
		sourceRepo: job.sourceRepo,
		sourceSha: job.sourceSha,
		recipe: recipeOf(state === "published" ? "gguf:q4_0" : "gguf:q8_0"),
		jobId: job.id,
		targetRepo: `yaqa-bot/${job.sourceRepo.replace("/", "-of-")}-YAQA-GGUF`,
		now,
	});
	if (state === "wanted") return variant.id;
	const manifest = makeManifest({ recipe: "gguf:q4_0", repo: job.sourceRepo, sha: SHA, kl: 0.02, bytes: 1e6 });
	await stageVariant(handle, { id: variant.id, manifest });
	await publishVariantRow(handle, { variant, targetSha: SHA, now });
	return variant.id;
}
