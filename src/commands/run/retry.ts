import { transition } from "../../jobs/transitions.ts";
import { renderChanges, renderNoJob, renderWhichJob } from "../replies/render-jobs.ts";
import { renderMayNot } from "../replies/render-permission.ts";
import { mayRetry } from "../rights.ts";
import type { CommandRun } from "./effect.ts";

export async function retry({ command, options, at, source, context }: CommandRun<"retry">): Promise<string> {
	if (!mayRetry(at.trusted)) return renderMayNot(context, "retry", at.author.name);
	const { jobs } = await options.statusOf(source);
	const { target } = command;
	const [job, ...others] =
		target === null
			? jobs.filter((one) => transition(one.state, "retry") !== null).slice(0, 1)
			: jobs.filter((one) => one.id.startsWith(target));
	if (job === undefined) {
		return renderNoJob(
			context,
			target === null
				? `No job of ${context.subject} failed or was cancelled.`
				: `I know no such job of ${context.subject}.`,
		);
	}
	if (others.length > 0) return renderWhichJob(context, "retry", [job, ...others]);
	const change = await options.retryJob(job.id);
	return renderChanges(context, "Trying again:", [{ job, problem: change.ok ? null : change.reason }]);
}
