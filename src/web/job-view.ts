import type { JobRecord } from "../records/job.ts";
import type { JobProgress } from "./job-progress.ts";
import type { Site } from "./site.ts";
import type { JobView } from "./views/job-page.ts";

/** What a job's page and its stream show. */
export async function jobView(
	site: Pick<Site, "data" | "summarize" | "context">,
	job: JobRecord,
	progress: JobProgress,
): Promise<JobView> {
	const variants = await site.data.listVariantsOfJob(job.id);
	return { job, progress, variants: site.summarize(variants), now: site.context().now };
}
