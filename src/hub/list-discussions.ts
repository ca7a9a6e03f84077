import { z } from "zod";
import { DiscussionEntry } from "./discussion.ts";
import { type HubAccess, modelApiPath } from "./hub-access.ts";
import { requestJson } from "./request-json.ts";

const Page = z.object({ discussions: z.array(DiscussionEntry), count: z.int(), start: z.int() });
const MAXIMUM_PAGES = 200;

/** The discussions of a model repo, newest first, page by page as the caller goes on. */
export async function* listDiscussions(
	params: HubAccess & {
		readonly repo: string;
		readonly status?: "all" | "open" | "closed";
		readonly type?: "all" | "discussion" | "pull_request";
		/** A user name. */
		readonly author?: string;
	},
): AsyncGenerator<DiscussionEntry> {
	const { repo, status = "all", type = "discussion", author, ...access } = params;
	for (let page = 0; page < MAXIMUM_PAGES; page++) {
		const query = new URLSearchParams({ p: String(page), type, status, ...(author === undefined ? {} : { author }) });
		const answer = await requestJson({
			...access,
			path: modelApiPath(repo, `/discussions?${query}`),
			schema: Page,
		});
		yield* answer.discussions;
		if (answer.discussions.length === 0 || answer.start + answer.discussions.length >= answer.count) return;
	}
}
