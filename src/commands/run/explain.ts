import { renderExplanation } from "../replies/render-explanation.ts";
import { renderNoJob } from "../replies/render-jobs.ts";
import type { CommandRun } from "./effect.ts";

export async function explain({ command, options, source, context }: CommandRun<"explain">): Promise<string> {
	const { jobs, variants } = await options.statusOf(source);
	const { target } = command;
	const variant = target === null ? null : (variants.find((one) => one.recipe === target) ?? null);
	const job =
		variant !== null
			? jobs.find((one) => one.id === variant.jobId)
			: target === null
				? jobs[0]
				: jobs.find((one) => one.id.startsWith(target));
	if (job === undefined) {
		return renderNoJob(
			context,
			target === null
				? `Nothing was made of ${context.subject} yet.`
				: `I know no such job or variant of ${context.subject}.`,
		);
	}
	const shown = variant === null ? variants.filter((one) => one.jobId === job.id) : [variant];
	return renderExplanation(context, job, shown);
}
