import { getJob } from "../db/jobs.ts";
import { parseAttempt } from "../records/attempt.ts";
import { isFinished } from "../records/job.ts";
import type { JobsContext } from "./context.ts";

/**
 * Ends runs of this machine that nobody waits for: their job is unknown to the database, has ended, or has a newer
 * attempt. A run whose job still waits for it is left alone, and found by its handle.
 */
export async function endOrphans(context: JobsContext): Promise<void> {
	const { database, runner, log } = context;
	for (const handle of await runner.listHeld()) {
		const attempt = parseAttempt(handle);
		if (attempt === null) continue;
		const job = await getJob(database.handle, attempt.job);
		if (job !== null && !isFinished(job.state) && job.fence === attempt.fence) continue;
		log.warn("A run that nobody waits for is ended", { run: handle, job: job?.state ?? "unknown" });
		await runner.cancel(handle);
		await runner.discard(handle);
	}
}
