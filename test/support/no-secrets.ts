import type { Secrets } from "../../src/config/secrets.ts";

export const NO_SECRETS: Secrets = {
	publisherToken: null,
	readToken: null,
	webhookSecret: null,
	previousWebhookSecret: null,
	databaseUrl: null,
	stagingToken: null,
	jobsToken: null,
	gitHubAppKey: null,
	gitHubWebhookSecret: null,
	previousGitHubWebhookSecret: null,
	operatorToken: null,
	oauthClientSecret: null,
	signingKey: null,
};
