import { markdownCode } from "../../publish/escape.ts";
import { shortSha } from "../../publish/figures.ts";
import type { JobRecord } from "../../records/job.ts";
import { sentence } from "./render-refusal.ts";
import { jobLink, nextStep, type ReplyContext, shortNumber } from "./reply-context.ts";

const MAXIMUM_JOBS_SHOWN = 5;

export function renderWhichJob(context: ReplyContext, command: string, jobs: readonly JobRecord[]): string {
	const lines = jobs
		.slice(0, MAXIMUM_JOBS_SHOWN)
		.map(
			(job) =>
				`- \`@${context.botName} ${command} ${shortNumber(job)}\`: commit ${markdownCode(shortSha(job.sourceSha))}, ${job.state}`,
		);
	const more = jobs.length > MAXIMUM_JOBS_SHOWN ? [`- and ${jobs.length - MAXIMUM_JOBS_SHOWN} more`] : [];
	return ["**Which job?** Several are possible:", [...lines, ...more].join("\n")].join("\n\n");
}

export function renderNoJob(context: ReplyContext, what: string): string {
	return `**${what}** ${nextStep(context, "status", "How things stand")}`;
}

/** What came of `cancel` or `retry`, one line a job. */
export function renderChanges(
	context: ReplyContext,
	done: string,
	changes: readonly { readonly job: JobRecord; readonly problem: string | null }[],
): string {
	return changes
		.map(({ job, problem }) =>
			problem === null
				? `**${done}** ${jobLink(context, job, `job ${shortNumber(job)}`)}.`
				: `**Not possible** for ${jobLink(context, job, `job ${shortNumber(job)}`)}: ${sentence(problem)}`,
		)
		.join("\n\n");
}
