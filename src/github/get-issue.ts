import type { GitHubAccess } from "./github-access.ts";
import { Issue } from "./issue.ts";

export async function getIssue(github: GitHubAccess, number: number): Promise<Issue> {
	const { data } = await github.request(
		"GET /repos/{owner}/{repo}/issues/{issue_number}",
		{ issue_number: number },
		{ repeatable: true },
	);
	return Issue.parse(data);
}
