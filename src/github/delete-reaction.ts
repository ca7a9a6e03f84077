import type { GitHubAccess } from "./github-access.ts";
import { type ReactedTo, reactionsOf } from "./reaction.ts";

/** Takes a reaction of the App's away; GitHub answers 404 for one that is gone already. */
export async function deleteReaction(github: GitHubAccess, to: ReactedTo, id: number): Promise<void> {
	const { path, parameters } = reactionsOf(to);
	await github.request(`DELETE ${path}/{reaction_id}`, { ...parameters, reaction_id: id }, { repeatable: true });
}
