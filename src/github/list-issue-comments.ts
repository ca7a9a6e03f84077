import { z } from "zod";
import type { GitHubAccess } from "./github-access.ts";
import { IssueComment } from "./issue.ts";

const PAGE = 100;
const MAXIMUM_PAGES = 20;
const Page = z.array(IssueComment);

/** The comments of an issue, oldest first, at most 2,000. */
export async function listIssueComments(github: GitHubAccess, number: number): Promise<readonly IssueComment[]> {
	const found: IssueComment[] = [];
	for (let page = 1; page <= MAXIMUM_PAGES; page++) {
		const { data } = await github.request(
			"GET /repos/{owner}/{repo}/issues/{issue_number}/comments",
			{ issue_number: number, per_page: PAGE, page },
			{ repeatable: true },
		);
		const comments = Page.parse(data);
		found.push(...comments);
		if (comments.length < PAGE) break;
	}
	return found;
}
