import { z } from "zod";
import type { GitHubAccess } from "./github-access.ts";
import { Issue, IssueComment } from "./issue.ts";

const PAGE = 100;
const MAXIMUM_PAGES = 10;

async function pages<Item>(
	github: GitHubAccess,
	route: string,
	parameters: Readonly<Record<string, string>>,
	schema: z.ZodType<Item>,
): Promise<readonly Item[]> {
	const found: Item[] = [];
	for (let page = 1; page <= MAXIMUM_PAGES; page++) {
		const { data } = await github.request(route, { ...parameters, per_page: PAGE, page }, { repeatable: true });
		const items = z.array(schema).parse(data);
		found.push(...items);
		if (items.length < PAGE) break;
	}
	return found;
}

/** Comments and issues that were written or changed since a time, the longest unchanged first. */
export async function listRecentComments(
	github: GitHubAccess,
	since: Date,
): Promise<{ readonly comments: readonly IssueComment[]; readonly issues: readonly Issue[] }> {
	const order = { sort: "updated", direction: "asc", since: since.toISOString() };
	return {
		comments: await pages(github, "GET /repos/{owner}/{repo}/issues/comments", order, IssueComment),
		issues: await pages(github, "GET /repos/{owner}/{repo}/issues", { ...order, state: "all" }, Issue),
	};
}
