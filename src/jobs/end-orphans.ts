import { getJob } from "../db/jobs.ts";
import type { JobsContext } from "./context.ts";
import { isFinished } from "./transitions.ts";

const HANDLE = /^(.+)-(\d+)$/;

/**
 * Ends runs of this machine that nobody waits for: their job is unknown to the database, has ended, or has a newer
 * attempt. A run whose job still waits for it is left alone, and found by its handle.
 */
export async function endOrphans(context: JobsContext): Promise<void> {
	const { database, runner, log } = context;
	for (const handle of await runner.listHeld()) {
		const [, id, fence] = HANDLE.exec(handle) ?? [];
		if (id === undefined) continue;
		const job = await getJob(database.handle, id);
		if (job !== null && !isFinished(job.state) && job.fence === Number(fence)) continue;
		log.warn("A run that nobody waits for is ended", { run: handle, job: job?.state ?? "unknown" });
		await runner.cancel(handle);
		await runner.discard(handle);
	}
}
