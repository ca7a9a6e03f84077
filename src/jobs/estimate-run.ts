import { setJobPlan } from "../db/admission.ts";
import type { Handle } from "../db/database.ts";
import { listSketchesOfWeights } from "../db/sketches.ts";
import { listVariantsOfJob } from "../db/variants.ts";
import type { Refusal } from "../errors.ts";
import type { JobWork } from "../records/job.ts";
import type { SourceFacts } from "../records/source.ts";
import type { JobsContext } from "./context.ts";
import { type Planner, refusalOfPlan } from "./plan-for-request.ts";
import { sketchFingerprint } from "./sketch-fingerprint.ts";

/** Machines that cannot be listed now must not hold anything up: the job then goes without an estimate. */
export async function plannerOf(context: JobsContext): Promise<Planner | null> {
	try {
		return (await context.planner?.()) ?? null;
	} catch (error) {
		context.log.warn("A job goes without a plan", { error });
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
 * Plans a run that no request planned: it was to need none, or the machines could not be listed then. So it too counts
 * against the ceilings. The refusal of one that may not be made at all.
 */
export async function estimateRun(
	context: JobsContext,
	work: JobWork,
): Promise<{ readonly ok: true; readonly flavour: string | null } | { readonly ok: false; readonly refusal: Refusal }> {
	const { job, facts, flavour } = work;
	const planner = job.planText == null && facts !== null ? await plannerOf(context) : null;
	if (planner === null || facts === null) return { ok: true, flavour };
	const { handle } = context.database;
	const variants = (await listVariantsOfJob(handle, job.id)).filter((variant) => variant.state !== "published").length;
	const plan = planner({ facts, variants, sketchReused: await hasSketch(context, handle, facts) });
	const refusal = refusalOfPlan(plan, context.configuration.budget);
	if (refusal !== null) return { ok: false, refusal };
	const { text, choice } = plan;
	const chosen = choice?.hardware.flavour ?? null;
	await setJobPlan(handle, { id: job.id, text, microUsd: choice?.microUsd ?? null, flavour: chosen });
	return { ok: true, flavour: chosen };
}
