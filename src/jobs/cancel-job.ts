import { getJob, requestStop } from "../db/jobs.ts";
import type { JobsContext } from "./context.ts";
import type { JobChange } from "./job-change.ts";
import { transition } from "./transitions.ts";
import { wakeJob } from "./wake-job.ts";
/** Asks for the end of a job. It is over when its state says so: by then nothing of its run is left. */
export async function cancelJob(context: JobsContext, id: string): Promise<JobChange> {
	const { database, clock } = context;
	const job = await getJob(database.handle, id);
	if (job === null) return { ok: false, reason: "There is no such job." };
	if (transition(job.state, "cancel") === null) {
		return {
			ok: false,
			reason:
				job.state === "announcing"
					? "It is too late: the variants are public already."
					: `The job is ${job.state} already.`,
		};
	}
	if (job.cancelRequested) return { ok: true, job };
	const asked = await requestStop(database.handle, { id, stopAs: "cancelled", now: clock.now() });
	const after = (await getJob(database.handle, id)) ?? job;
	if (!asked && !after.cancelRequested) return { ok: false, reason: `The job is ${after.state} already.` };
	await wakeJob(context, after);
	return { ok: true, job: after };
}
