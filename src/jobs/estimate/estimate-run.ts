import { setJobEstimate } from "../../db/admission.ts";
import type { Handle } from "../../db/database.ts";
import { listSketchesOfWeights } from "../../db/sketches.ts";
import { listVariantsOfJob } from "../../db/variants.ts";
import type { Refusal } from "../../errors.ts";
import type { JobWork } from "../../records/job.ts";
import type { SourceFacts } from "../../records/source.ts";
import { isOpen } from "../../records/variant.ts";
import type { JobsContext } from "../context.ts";
import { sketchFingerprint } from "../sketch-fingerprint.ts";
import { plannedSeconds } from "./estimate-job.ts";
import { type Estimator, refusalOfEstimate } from "./estimator.ts";

/** Machines that cannot be listed now must not hold anything up: the job then goes without an estimate. */
export async function estimatorOf(context: JobsContext): Promise<Estimator | null> {
	try {
		return (await context.estimator?.()) ?? null;
	} catch (error) {
		context.log.warn("A job goes without an estimate", { error });
		return null;
	}
}

/** Whether a run on this commit need take no sketch. */
export async function hasSketch(context: JobsContext, handle: Handle, facts: SourceFacts): Promise<boolean> {
	const { repo, sha, content = null } = facts;
	const fingerprint = sketchFingerprint(context.configuration);
	const found = await listSketchesOfWeights(handle, { repo, sha, fingerprint, content });
	return found.some((sketch) => sketch.sameCompanions);
}

/**
 * Estimates a run that no request had estimated: it was to need none, or the machines could not be listed then. So it too counts
 * against the ceilings. The refusal of one that may not be made at all.
 */
export async function estimateRun(
	context: JobsContext,
	work: JobWork,
): Promise<{ readonly ok: true; readonly flavor: string | null } | { readonly ok: false; readonly refusal: Refusal }> {
	const { job, facts, flavor } = work;
	const estimator = job.planText == null && facts !== null ? await estimatorOf(context) : null;
	if (estimator === null || facts === null) return { ok: true, flavor };
	const { handle } = context.database;
	const variants = (await listVariantsOfJob(handle, job.id)).filter(isOpen).length;
	const estimate = estimator({ facts, variants, sketchReused: await hasSketch(context, handle, facts) });
	const refusal = refusalOfEstimate(estimate, context.configuration.budget);
	if (refusal !== null) return { ok: false, refusal };
	const { text, choice } = estimate;
	const chosen = choice?.hardware.flavor ?? null;
	await setJobEstimate(handle, {
		id: job.id,
		text,
		microUsd: choice?.microUsd ?? null,
		seconds: plannedSeconds(estimate),
		flavor: chosen,
	});
	return { ok: true, flavor: chosen };
}
