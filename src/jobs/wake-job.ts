import type { JobRecord } from "../records/job.ts";
import type { JobsContext } from "./context.ts";
import { stepOf } from "./transitions.ts";
export async function wakeJob(context: JobsContext, job: JobRecord): Promise<void> {
	const step = stepOf(job.state);
	const now = context.clock.now();
	if (step !== null) await context.wake({ kind: "step", step, jobId: job.id, runner: job.runner }, now);
	await context.wake({ kind: "outbox", jobId: job.id }, now);
}
