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
	const [variants, place] = await Promise.all([
		site.data.listVariantsOfJob(job.id),
		job.state === "planned" || job.state === "waiting" ? site.data.queuePlace(job.id) : null,
	]);
	return { job, progress, variants: site.summarize(variants), place, now: site.context().now };
}
