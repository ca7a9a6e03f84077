import { GitHubWebhookBody } from "../github/webhook-body.ts";
import type { Attempt } from "../records/attempt.ts";
import { parseRunName } from "../runners/run-name.ts";

type GitHubEvent =
	/** Something happened to the run of an attempt. */
	| { readonly kind: "run"; readonly repository: string; readonly attempt: Attempt }
	| {
			readonly kind: "comment";
			readonly repository: string;
			readonly issue: number;
			/** `null`: the issue's opening message. */
			readonly comment: number | null;
	  }
	| { readonly kind: "ignored"; readonly reason: string };

/** The run that a delivery has news of. */
export type GitHubRunEvent = Extract<GitHubEvent, { kind: "run" }>;

function ignored(reason: string): GitHubEvent {
	return { kind: "ignored", reason };
}

/** What a stored delivery from GitHub is about. The payload is a hint; what it means is read from GitHub. */
export function readGitHubEvent(body: unknown): GitHubEvent {
	const parsed = GitHubWebhookBody.safeParse(body);
	if (!parsed.success) return ignored("The body is not a GitHub webhook's.");
	const { event, payload } = parsed.data;
	const { action = "", issue, comment } = payload;
	const repository = payload.repository?.full_name ?? null;
	switch (event) {
		case "workflow_run":
		case "workflow_job": {
			const name = event === "workflow_run" ? payload.workflow_run?.display_title : payload.workflow_job?.name;
			const attempt = name === undefined ? null : parseRunName(name);
			if (attempt === null || repository === null) return ignored("It is not about a run of this bot's.");
			return { kind: "run", repository, attempt };
		}
		case "issues":
			if (repository === null || issue === undefined) return ignored("The body is not one of GitHub's about an issue.");
			if (action !== "opened" && action !== "edited") return ignored("No message was written.");
			return { kind: "comment", repository, issue: issue.number, comment: null };
		case "issue_comment":
			if (repository === null || issue === undefined || comment === undefined) {
				return ignored("The body is not one of GitHub's about a comment.");
			}
			// An edited comment is read again: what is new in it is run.
			if (action !== "created" && action !== "edited") return ignored("It was taken away.");
			if (comment.user?.type === "Bot") return ignored("A bot wrote it.");
			return { kind: "comment", repository, issue: issue.number, comment: comment.id };
		default:
			return ignored(`Nothing is done for ${event.slice(0, 60)}.`);
	}
}
