import { isFinished, type JobRecord } from "../../records/job.ts";
import { requesterName } from "../host.ts";
import { renderChanges, renderNoJob, renderWhichJob } from "../replies/render-jobs.ts";
import { renderMayNot } from "../replies/render-permission.ts";
import { mayCancel } from "../rights.ts";
import type { CommandRun } from "./effect.ts";

async function isAllowed(job: JobRecord, { options, at }: CommandRun<"cancel">): Promise<boolean> {
	const requesters = at.trusted ? [] : await options.requestersOf(job.id);
	return mayCancel(at.trusted, requesterName(options.host, at.author.name), requesters);
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
	for (const job of meant) if (await isAllowed(job, run)) allowed.push(job);
	if (allowed.length === 0) return renderMayNot(context, "cancel", at.author.name);
	if (allowed.length > 1 && target !== "all") return renderWhichJob(context, "cancel", allowed);
	const changes = [];
	for (const job of allowed) {
		const change = await options.cancelJob(job.id);
		changes.push({ job, problem: change.ok ? null : change.reason });
	}
	return renderChanges(context, "Cancelling", changes);
}
