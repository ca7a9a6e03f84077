import { z } from "zod";
import type { GitHubAccess } from "./github-access.ts";
import { type ReactedTo, Reaction, reactionsOf } from "./reaction.ts";

const PAGE = 100;
const Page = z.array(Reaction);

/** Everybody's reactions, the first 100. */
export async function listReactions(github: GitHubAccess, to: ReactedTo): Promise<readonly Reaction[]> {
	const { path, parameters } = reactionsOf(to);
	const { data } = await github.request(`GET ${path}`, { ...parameters, per_page: PAGE }, { repeatable: true });
	return Page.parse(data);
}
