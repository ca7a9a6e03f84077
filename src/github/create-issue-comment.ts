import type { GitHubAccess } from "./github-access.ts";
import { IssueComment } from "./issue.ts";

/** Never sent twice: an answer that was lost is found by its trailer when the issue is read again. */
export async function createIssueComment(github: GitHubAccess, number: number, body: string): Promise<IssueComment> {
	const { data } = await github.request(
		"POST /repos/{owner}/{repo}/issues/{issue_number}/comments",
		{ issue_number: number, body },
		{ repeatable: false },
	);
	return IssueComment.parse(data);
}
