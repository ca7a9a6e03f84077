import { setJobEstimate } from "../../db/admission.ts";
import { PermanentError, RetryableError } from "../../errors.ts";
import type { JobWork } from "../../records/job.ts";
import type { Placement } from "../../runners/runner.ts";
import type { JobsContext } from "../context.ts";
import { plannedSeconds } from "./estimate-job.ts";

/**
 * The machine that the job's estimate chose. A job that could not be estimated, since the machines could not be listed
 * then, is estimated now; without a list there is nothing to choose from, and the job waits.
 */
export async function placementOf(context: JobsContext, work: JobWork, variants: number): Promise<Placement> {
	const { configuration, database, log } = context;
	const { kind, hfJobs } = configuration.runner;
	if (kind !== "hf-jobs" || hfJobs.flavor !== "auto" || work.flavor !== null || work.facts === null) {
		return { flavor: work.flavor };
	}
	let estimator: Awaited<ReturnType<NonNullable<JobsContext["estimator"]>>>;
	try {
		estimator = (await context.estimator?.()) ?? null;
	} catch (error) {
		log.warn("Machines cannot be listed", { job: work.job.id, error });
		throw new RetryableError("The Hub's list of machines cannot be read, so that none can be chosen.", {
			cause: error,
		});
	}
	if (estimator === null) return { flavor: null };
	const estimate = estimator({ facts: work.facts, variants, sketchReused: false });
	if (estimate.refusal !== null) throw new PermanentError(estimate.refusal);
	const flavor = estimate.choice?.hardware.flavor ?? null;
	await setJobEstimate(database.handle, {
		id: work.job.id,
		text: estimate.text,
		microUsd: estimate.choice?.microUsd ?? null,
		seconds: plannedSeconds(estimate),
		flavor,
	});
	return { flavor };
}
