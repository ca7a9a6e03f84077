import { z } from "zod";
import { type GitHubAccess, GitHubRequestError } from "./github-access.ts";

/** GitHub folds "maintain" into `write` and "triage" into `read`. */
const Permission = z.object({ permission: z.string() });

/** What a person may do in the repo now: `admin`, `write`, `read` or `none`. */
export async function getPermission(github: GitHubAccess, username: string): Promise<string> {
	try {
		const { data } = await github.request(
			"GET /repos/{owner}/{repo}/collaborators/{username}/permission",
			{ username },
			{ repeatable: true },
		);
		return Permission.parse(data).permission;
	} catch (error) {
		// Not a user any more, or not one that GitHub shows us.
		if (error instanceof GitHubRequestError && !error.signIn && error.status === 404) return "none";
		throw error;
	}
}
