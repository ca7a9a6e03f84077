import { z } from "zod";
import type { Attempt } from "../records/attempt.ts";
import { parseRunName } from "../runners/run-name.ts";
import { type GitHubComment, readGitHubComment } from "./github-comment.ts";

/** A delivery as `/webhooks/github` stores it: the event's name, and the payload that GitHub signed. */
export const GitHubDelivery = z.object({
	event: z.string(),
	payload: z.looseObject({
		action: z.string().max(64).optional(),
		repository: z.looseObject({ full_name: z.string().max(200) }).optional(),
	}),
});
export type GitHubDelivery = z.infer<typeof GitHubDelivery>;

/** The run's title in the one, the job's name in the other: the workflow gives both the attempt's name. */
const WorkflowRunPayload = z.object({ workflow_run: z.object({ display_title: z.string().max(400) }) });
const WorkflowJobPayload = z.object({ workflow_job: z.object({ name: z.string().max(400) }) });

export type GitHubEvent =
	/** Something happened to the run of an attempt. */
	| { readonly kind: "run"; readonly repository: string; readonly attempt: Attempt }
	| GitHubComment
	| { readonly kind: "ignored"; readonly reason: string };

function ignored(reason: string): GitHubEvent {
	return { kind: "ignored", reason };
}

/** What a stored delivery from GitHub is about. The payload is a hint; what it means is read from GitHub. */
export function readGitHubEvent(body: unknown): GitHubEvent {
	const parsed = GitHubDelivery.safeParse(body);
	if (!parsed.success) return ignored("The body is not a GitHub webhook's.");
	const { event, payload } = parsed.data;
	const repository = payload.repository?.full_name ?? null;
	switch (event) {
		case "workflow_run":
		case "workflow_job": {
			const name =
				event === "workflow_run"
					? WorkflowRunPayload.safeParse(payload).data?.workflow_run.display_title
					: WorkflowJobPayload.safeParse(payload).data?.workflow_job.name;
			const attempt = name === undefined ? null : parseRunName(name);
			if (attempt === null || repository === null) return ignored("It is not about a run of this bot's.");
			return { kind: "run", repository, attempt };
		}
		case "issue_comment":
		case "issues":
			return readGitHubComment(event, payload);
		default:
			return ignored(`Nothing is done for ${event.slice(0, 60)}.`);
	}
}
