import type { Handle } from "../db/database.ts";
import { getJob, listJobs, lockSource } from "../db/jobs.ts";
import { findRequestByKey } from "../db/requests.ts";
import { findSettledBase } from "../db/settled-base.ts";
import { setKnownHead } from "../db/sweeps.ts";
import { listVariantsOfSourceCommit } from "../db/variants.ts";
import type { JobRecord } from "../records/job.ts";
import type { RequestRecord } from "../records/request.ts";
import { type CheckedRequest, checkRequest } from "./check-request.ts";
import type { JobsContext } from "./context.ts";
import { isAutomatic } from "./is-automatic.ts";
import type { RequestInput, RequestOutcome } from "./ports.ts";
import { recordRefusal } from "./record-refusal.ts";
import { settleVariants } from "./settle-variants.ts";
import { wakeJob } from "./wake-job.ts";

/** What an earlier call with the same key came to, as things stand now. */
async function outcomeOf(handle: Handle, request: RequestRecord): Promise<RequestOutcome> {
	if (request.refusal !== null) return { kind: "refused", request, refusal: request.refusal };
	const all =
		request.sourceSha === null
			? []
			: await listVariantsOfSourceCommit(handle, { repo: request.sourceRepo, sha: request.sourceSha });
	const variants = all.filter((variant) => request.recipes.includes(variant.recipe));
	const job = request.jobId === null ? null : await getJob(handle, request.jobId);
	if (job === null || variants.every((variant) => variant.state === "published")) {
		return { kind: "published", request, variants };
	}
	return { kind: "planned", request, job, variants, created: false };
}

type Recorded = {
	readonly outcome: RequestOutcome;
	readonly wakeJobs: readonly JobRecord[];
	/** A job that has nothing to do but to be announced. */
	readonly wakeOutbox: string | null;
};

/** `null`: somebody else's request has settled an adapter's base meanwhile, at another commit than was looked at. */
async function record(
	context: JobsContext,
	tx: Handle,
	input: RequestInput,
	checked: CheckedRequest,
): Promise<Recorded | null> {
	await lockSource(tx, input.sourceRepo);
	const raced = await findRequestByKey(tx, input.dedupeKey);
	if (raced !== null) return { outcome: await outcomeOf(tx, raced), wakeJobs: [], wakeOutbox: null };
	const sha = checked.ok ? checked.facts.sha : checked.sha;
	if (isAutomatic(input.kind) && sha !== null) await setKnownHead(tx, input.sourceRepo, sha, context.clock.now());
	if (checked.ok && checked.facts.base != null) {
		const settled = await findSettledBase(tx, checked.facts);
		if (settled !== null && settled.sha !== checked.facts.base.sha) return null;
	}
	if (!checked.ok) return { ...(await recordRefusal(context, tx, input, checked)), wakeJobs: [] };
	return { ...(await settleVariants(context, tx, input, checked)), wakeOutbox: null };
}

/**
 * Records why we act, and makes sure that exactly one job does what is asked: what is published or under way already is
 * joined, never made twice. Calls with the same key, at the same time or after a crash, are one request.
 */
export async function recordRequest(context: JobsContext, input: RequestInput): Promise<RequestOutcome> {
	const { database } = context;
	const earlier = await findRequestByKey(database.handle, input.dedupeKey);
	if (earlier !== null) return await outcomeOf(database.handle, earlier);
	// The source is read outside the transaction: that may take long, and holds no lock.
	const checked = await checkRequest(context, input);
	const name = checked.ok ? (checked.facts.currentName ?? input.sourceRepo) : input.sourceRepo;
	if (name !== input.sourceRepo && (await listJobs(database.handle, { sourceRepo: name, limit: 1 })).items.length > 0) {
		// Asked for by a former name, which the records have followed: what was made is found under the name of now.
		const renamed = await checkRequest(context, { ...input, sourceRepo: name });
		return await store(context, { ...input, sourceRepo: name }, renamed);
	}
	return await store(context, input, checked);
}

async function store(context: JobsContext, input: RequestInput, checked: CheckedRequest): Promise<RequestOutcome> {
	const { database } = context;
	const recorded = await database.transaction((tx) => record(context, tx, input, checked));
	if (recorded === null) return await store(context, input, await checkRequest(context, input));
	for (const job of recorded.wakeJobs) await wakeJob(context, job);
	if (recorded.wakeOutbox !== null)
		await context.wake({ kind: "outbox", jobId: recorded.wakeOutbox }, context.clock.now());
	return recorded.outcome;
}
