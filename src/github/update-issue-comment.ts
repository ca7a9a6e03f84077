import type { GitHubAccess } from "./github-access.ts";

export async function updateIssueComment(github: GitHubAccess, id: number, body: string): Promise<void> {
	await github.request(
		"PATCH /repos/{owner}/{repo}/issues/comments/{comment_id}",
		{ comment_id: id, body },
		{ repeatable: true },
	);
}
