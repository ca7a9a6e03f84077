import type { Handle } from "../db/database.ts";
import { insertJob, listJobsOfCommit } from "../db/jobs.ts";
import { insertRequest } from "../db/requests.ts";
import { setSourceRefusal } from "../db/status-discussions.ts";
import { listVariantsOfJob } from "../db/variants.ts";
import type { Refusal } from "../errors.ts";
import type { JobRecord } from "../records/job.ts";
import type { JobsContext } from "./context.ts";
import { isAutomatic } from "./is-automatic.ts";
import type { RequestInput, RequestOutcome } from "./ports.ts";
/** A refused source gets a failed job, so that there is a page that says why; asked again, the same one. */
export async function recordRefusal(
	context: JobsContext,
	tx: Handle,
	input: RequestInput,
	refused: { readonly sha: string | null; readonly refusal: Refusal },
): Promise<{ readonly outcome: RequestOutcome; readonly wakeOutbox: string | null }> {
	const { sha, refusal } = refused;
	const now = context.clock.now();
	// Somebody else's quantized upload in a watched namespace is nothing to complain of.
	// An owner who said no wants no discussion about it.
	const isSilent =
		(isAutomatic(input.kind) && (refusal.code === "already-quantized" || refusal.code === "opted-out")) ||
		// A sweep may pass between the making of a repo and its first upload: nobody pushed anything to answer.
		(input.kind === "sweep" && refusal.code === "empty-repo");
	let job: JobRecord | null = null;
	let created = false;
	if (sha !== null && !isSilent) {
		const earlier = await listJobsOfCommit(tx, { repo: input.sourceRepo, sha });
		for (const candidate of earlier) {
			if (candidate.state === "failed" && candidate.refusal?.code === refusal.code) {
				const variants = await listVariantsOfJob(tx, candidate.id);
				if (variants.length === 0) job = candidate;
			}
		}
		if (job === null) {
			job = await insertJob(tx, {
				id: context.newId(),
				sourceRepo: input.sourceRepo,
				sourceSha: sha,
				state: "failed",
				statusText: refusal.message,
				refusal,
				facts: null,
				now,
			});
			created = true;
		}
		await setSourceRefusal(tx, { sourceRepo: input.sourceRepo, refused, now });
	}
	const request = await insertRequest(tx, {
		id: context.newId(),
		kind: input.kind,
		dedupeKey: input.dedupeKey,
		sourceRepo: input.sourceRepo,
		sourceSha: sha,
		recipes: input.recipes.map((recipe) => recipe.canonical),
		requester: input.requester,
		replyTo: input.replyTo,
		jobId: job?.id ?? null,
		refusal,
		now,
	});
	return { outcome: { kind: "refused", request, refusal }, wakeOutbox: created && job !== null ? job.id : null };
}
