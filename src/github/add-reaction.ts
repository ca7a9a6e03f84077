import type { GitHubAccess } from "./github-access.ts";
import { type ReactedTo, Reaction, type ReactionContent, reactionsOf } from "./reaction.ts";

/** Adds a reaction of the App's; one that is there already stays the only one. */
export async function addReaction(github: GitHubAccess, to: ReactedTo, content: ReactionContent): Promise<Reaction> {
	const { path, parameters } = reactionsOf(to);
	const { data } = await github.request(`POST ${path}`, { ...parameters, content }, { repeatable: true });
	return Reaction.parse(data);
}
