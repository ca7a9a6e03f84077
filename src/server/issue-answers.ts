import type { AnswerOptions } from "../commands/answer-options.ts";
import { gitHubForum } from "../commands/github-forum.ts";
import { gitHubSubject } from "../commands/github-subject.ts";
import { GITHUB_WORDS } from "../commands/replies/reply-context.ts";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { createGitHubAccess, type GitHubAccess } from "../github/github-access.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { isPublicModel } from "../hub/is-public-model.ts";
import { checkRepo } from "../jobs/watch-rules.ts";

type IssueRepos = {
	readonly appId: string;
	/** By the repo's name in small letters: GitHub does not tell capitals apart. */
	readonly access: ReadonlyMap<string, GitHubAccess>;
};

/** The GitHub repos in whose issues commands are answered; `null`: none. */
export function issueRepos(configuration: Configuration, secrets: Secrets): IssueRepos | null {
	const { github, comments } = configuration.requests;
	const { githubActions } = configuration.runner;
	const appId = github.appId ?? githubActions.appId;
	const privateKey = secrets.gitHubAppKey;
	if (!comments || github.repositories.length === 0 || appId === null || privateKey === null) return null;
	const apiUrl = github.apiUrl ?? githubActions.apiUrl;
	return {
		appId,
		access: new Map(
			github.repositories.map(({ repository }) => [
				repository.toLowerCase(),
				createGitHubAccess({ apiUrl, repository, appId, privateKey }),
			]),
		),
	};
}

/** How issues are read and answered, and which model they are about. */
export function issueForum(
	configuration: Configuration,
	repos: IssueRepos,
	hub: Omit<HubAccess, "accessToken">,
): Pick<AnswerOptions, "forum" | "subjectOf" | "context"> {
	const { requests, watch, server } = configuration;
	const models = new Map(requests.github.repositories.map((one) => [one.repository.toLowerCase(), one.model]));
	return {
		forum: gitHubForum({
			appId: repos.appId,
			access: (repository) => repos.access.get(repository.toLowerCase()) ?? null,
		}),
		subjectOf: gitHubSubject({
			usualModel: (repository) => models.get(repository.toLowerCase()) ?? null,
			isWatched: (model) => checkRepo(watch, model).watched,
			isPublic: (repo) => isPublicModel({ hubUrl: hub.hubUrl, ...(hub.fetch ? { fetch: hub.fetch } : {}), repo }),
		}),
		context: {
			...GITHUB_WORDS,
			hubUrl: configuration.hub.url,
			siteUrl: server.publicUrl,
			botName: requests.github.mention ?? configuration.hub.mention,
		},
	};
}
