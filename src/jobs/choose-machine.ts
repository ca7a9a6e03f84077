import { setJobPlan } from "../db/admission.ts";
import { PermanentError, RetryableError } from "../errors.ts";
import type { JobWork } from "../records/job.ts";
import type { Placement } from "../runners/runner.ts";
import type { JobsContext } from "./context.ts";

/**
 * The machine that the job's plan chose. A job whose plan could not be made, since the machines could not be listed
 * then, is planned now; without a list there is nothing to choose from, and the job waits.
 */
export async function placementOf(context: JobsContext, work: JobWork, variants: number): Promise<Placement> {
	const { configuration, database, log } = context;
	const { kind, hfJobs } = configuration.runner;
	if (kind !== "hf-jobs" || hfJobs.flavor !== "auto" || work.flavour !== null || work.facts === null) {
		return { flavour: work.flavour };
	}
	let planner: Awaited<ReturnType<NonNullable<JobsContext["planner"]>>>;
	try {
		planner = (await context.planner?.()) ?? null;
	} catch (error) {
		log.warn("Machines cannot be listed", { job: work.job.id, error });
		throw new RetryableError("The Hub's list of machines cannot be read, so that none can be chosen.", {
			cause: error,
		});
	}
	if (planner === null) return { flavour: null };
	const plan = planner({ facts: work.facts, variants, sketchReused: false });
	if (plan.refusal !== null) throw new PermanentError(plan.refusal);
	const flavour = plan.choice?.hardware.flavour ?? null;
	await setJobPlan(database.handle, {
		id: work.job.id,
		text: plan.text,
		microUsd: plan.choice?.microUsd ?? null,
		flavour,
	});
	return { flavour };
}
