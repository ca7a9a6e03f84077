import { hintRun } from "../db/jobs.ts";
import { assertNever } from "../errors.ts";
import type { JobsContext } from "../jobs/context.ts";
import type { DeliveryRecord } from "../records/delivery.ts";
import type { DeliveriesContext, Settlement } from "./deliveries-context.ts";
import { type GitHubRunEvent, readGitHubEvent } from "./github-event.ts";

/** A run has news: it is looked at now instead of with the next poll. */
async function handleRunEvent(context: JobsContext, event: GitHubRunEvent): Promise<Settlement> {
	const { configuration, database, clock, runner } = context;
	const { kind, githubActions } = configuration.runner;
	if (kind !== "github-actions" || event.repository.toLowerCase() !== githubActions.repository?.toLowerCase()) {
		return { outcome: "ignored", detail: "It is not about the repo that runs jobs." };
	}
	const { job, fence } = event.attempt;
	const now = clock.now();
	if (!(await hintRun(database.handle, { job, fence, now }))) {
		return { outcome: "ignored", detail: `Attempt ${fence} of job ${job} is not under way.` };
	}
	await context.wake({ kind: "step", step: "poll", jobId: job, runner: runner.name }, now);
	return { outcome: "accepted", detail: `Looked at the run of job ${job}.` };
}

/** GitHub reported a run or a comment. */
export async function handleGitHubDelivery(context: DeliveriesContext, delivery: DeliveryRecord): Promise<Settlement> {
	const event = readGitHubEvent(delivery.body);
	switch (event.kind) {
		case "ignored":
			return { outcome: "ignored", detail: event.reason };
		case "run":
			return await handleRunEvent(context, event);
		case "comment": {
			const { comments, github } = context.configuration.requests;
			if (!comments) return { outcome: "ignored", detail: "Comments are switched off." };
			const name = event.repository.toLowerCase();
			const known = github.repositories.find(({ repository }) => repository.toLowerCase() === name);
			if (known === undefined) return { outcome: "ignored", detail: "It is not among requests.github.repositories." };
			return await context.handleComment({
				deliveryId: delivery.id,
				host: "github",
				repo: known.repository,
				discussion: event.issue,
				commentId: event.comment === null ? null : String(event.comment),
			});
		}
		default:
			return assertNever(event);
	}
}
