import { approveJob as approveRow } from "../db/admission.ts";
import { getJob } from "../db/jobs.ts";
import type { JobsContext } from "./context.ts";
import type { JobChange } from "./job-change.ts";
import { wakeJob } from "./wake-job.ts";

/** Lets a job run that costs more than may start by itself. */
export async function approveJob(context: JobsContext, id: string): Promise<JobChange> {
	const { database, clock } = context;
	const job = await getJob(database.handle, id);
	if (job === null) return { ok: false, reason: "There is no such job." };
	if (!(await approveRow(database.handle, id, clock.now()))) {
		return { ok: false, reason: `The job is ${job.state}: it waits for no approval.` };
	}
	await wakeJob(context, job);
	return { ok: true, job };
}
