import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { GitHubRequestError } from "../github/github-access.ts";
import { listRecentComments } from "../github/list-recent-comments.ts";
import { issueRepos } from "../server/issue-answers.ts";
import { type Finding, fine, firstLine, lacking } from "./finding.ts";

const MAXIMUM_REPOS = 10;

/** Whether the GitHub App reads the issues of the repos whose comments are answered; nothing where there are none. */
export async function checkIssues(configuration: Configuration, secrets: Secrets): Promise<readonly Finding[]> {
	const repos = issueRepos(configuration, secrets);
	if (repos === null) return [];
	const shown = [...repos.access.values()].slice(0, MAXIMUM_REPOS);
	return await Promise.all(
		shown.map(async (github): Promise<Finding> => {
			const name = `Issues of ${github.repository}`;
			try {
				await listRecentComments(github, new Date());
			} catch (error) {
				const remedy =
					error instanceof GitHubRequestError
						? `Install the GitHub App ${repos.appId} on the repo, with "Issues: read and write", and give its key in YAQA_BOT_GITHUB_APP_KEY.`
						: "Check requests.github.apiUrl and that GitHub can be reached from here.";
				return lacking(name, firstLine(error), remedy);
			}
			if (configuration.server.publicUrl !== null && secrets.gitHubWebhookSecret === null) {
				return lacking(
					name,
					"readable; no webhook secret is set, so comments are found by looking only",
					"Set YAQA_BOT_GITHUB_WEBHOOK_SECRET, and the App's webhook to ADDRESS/webhooks/github.",
				);
			}
			return fine(name, `the App ${repos.appId} reads them`);
		}),
	);
}
