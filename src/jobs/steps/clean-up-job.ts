import { rm } from "node:fs/promises";
import type { JobRecord } from "../../records/job.ts";
import type { JobsContext } from "../context.ts";
import { removePrivateSource } from "../retention/tidy-up.ts";
import { workFolders } from "../work-folders.ts";

/** Ends the run of a job's present attempt, if this process's runner has it. */
export async function stopRun(context: JobsContext, job: JobRecord): Promise<void> {
	const { runner } = context;
	if (job.fence === 0 || job.runner !== runner.name) return;
	const handle = job.runnerHandle ?? (await runner.find(job.id, job.fence));
	if (handle !== null) await runner.cancel(handle);
}

/** Removes whatever the present attempt left: process, run folder, staging repo, downloads. Nothing left is fine. */
export async function cleanUpJob(context: JobsContext, job: JobRecord): Promise<void> {
	const { runner, ports, configuration } = context;
	if (job.fence === 0) return;
	if (job.runner === runner.name) {
		const handle = job.runnerHandle ?? (await runner.find(job.id, job.fence));
		if (handle !== null) {
			await runner.cancel(handle);
			await runner.discard(handle);
		}
	}
	await rm(workFolders(configuration.database.dataDirectory).attempt(job.id, job.fence), {
		recursive: true,
		force: true,
	});
	await removePrivateSource(context, job);
	await ports.removeStaging({ job });
}
