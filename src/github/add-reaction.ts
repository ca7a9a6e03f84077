import type { GitHubAccess } from "./github-access.ts";

/** Adds a reaction to a comment, or to an issue's opening message; one that is there already stays the only one. */
export async function addReaction(
	github: GitHubAccess,
	to: { readonly comment: number } | { readonly issue: number },
	content: "eyes" | "rocket" | "confused",
): Promise<void> {
	if ("comment" in to) {
		await github.request(
			"POST /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions",
			{ comment_id: to.comment, content },
			{ repeatable: true },
		);
	} else {
		await github.request(
			"POST /repos/{owner}/{repo}/issues/{issue_number}/reactions",
			{ issue_number: to.issue, content },
			{ repeatable: true },
		);
	}
}
