import { isFinished, type JobRecord } from "../../records/job.ts";
import { requesterName } from "../host.ts";
import { renderChanges, renderNoJob, renderWhichJob } from "../replies/render-jobs.ts";
import { renderMayNot } from "../replies/render-permission.ts";
import { sameName } from "../same-name.ts";
import type { CommandRun } from "./effect.ts";

/** People without rights in the repo may cancel what they alone asked for. */
async function mayCancel(job: JobRecord, { options, at }: CommandRun<"cancel">): Promise<boolean> {
	if (at.trusted) return true;
	const requesters = await options.requestersOf(job.id);
	const own = requesterName(options.host, at.author.name);
	return requesters.length > 0 && requesters.every((name) => name !== null && sameName(name, own));
}

export async function cancel(run: CommandRun<"cancel">): Promise<string> {
	const { command, options, at, source, context } = run;
	const { jobs } = await options.statusOf(source);
	const going = jobs.filter((job) => !isFinished(job.state));
	const { target } = command;
	const meant = target === null || target === "all" ? going : jobs.filter((job) => job.id.startsWith(target));
	if (meant.length === 0) {
		const what =
			target === null || target === "all"
				? `Nothing of ${context.subject} is going on.`
				: `I know no such job of ${context.subject}.`;
		return renderNoJob(context, what);
	}
	const allowed: JobRecord[] = [];
	for (const job of meant) if (await mayCancel(job, run)) allowed.push(job);
	if (allowed.length === 0) return renderMayNot(context, "cancel", at.author.name);
	if (allowed.length > 1 && target !== "all") return renderWhichJob(context, "cancel", allowed);
	const changes = [];
	for (const job of allowed) {
		const change = await options.cancelJob(job.id);
		changes.push({ job, problem: change.ok ? null : change.reason });
	}
	return renderChanges(context, "Cancelling", changes);
}
