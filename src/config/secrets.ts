import { createPrivateKey } from "node:crypto";
import { z } from "zod";

/** Kept apart from the configuration, so that printing the configuration cannot print these. */
export type Secrets = {
	/** Writes quantized repos, staging repos and discussions. Never handed to a process that loads models. */
	readonly publisherToken: string | null;
	/** Reads sources. */
	readonly readToken: string | null;
	readonly webhookSecret: string | null;
	/** Still accepted while the Hub's webhooks are being moved to the new secret. */
	readonly previousWebhookSecret: string | null;
	readonly databaseUrl: string | null;
	/** Writes staging repos of runs elsewhere, and nothing else: those runs are given it. */
	readonly stagingToken: string | null;
	/** Starts HF Jobs. */
	readonly jobsToken: string | null;
	/** The private key of the GitHub App, PEM. */
	readonly gitHubAppKey: string | null;
	/** What GitHub signs the App's deliveries with. */
	readonly gitHubWebhookSecret: string | null;
	readonly previousGitHubWebhookSecret: string | null;
	/** Shows the pages of private sources to whoever sends it. */
	readonly operatorToken: string | null;
	/** Of the OAuth app that people sign in to. */
	readonly oauthClientSecret: string | null;
	/** Signs manifests: an Ed25519 private key, PEM. */
	readonly signingKey: string | null;
};

/** The environment variables that carry secrets, for help and `doctor`. */
export const SECRET_VARIABLES = {
	publisherToken: ["YAQA_BOT_HUB_TOKEN", "HF_TOKEN"],
	readToken: ["YAQA_BOT_READ_TOKEN"],
	webhookSecret: ["YAQA_BOT_WEBHOOK_SECRET"],
	previousWebhookSecret: ["YAQA_BOT_WEBHOOK_SECRET_PREVIOUS"],
	databaseUrl: ["DATABASE_URL"],
	stagingToken: ["YAQA_BOT_STAGING_TOKEN"],
	jobsToken: ["YAQA_BOT_JOBS_TOKEN"],
	gitHubAppKey: ["YAQA_BOT_GITHUB_APP_KEY"],
	gitHubWebhookSecret: ["YAQA_BOT_GITHUB_WEBHOOK_SECRET"],
	previousGitHubWebhookSecret: ["YAQA_BOT_GITHUB_WEBHOOK_SECRET_PREVIOUS"],
	operatorToken: ["YAQA_BOT_OPERATOR_TOKEN"],
	oauthClientSecret: ["YAQA_BOT_OAUTH_CLIENT_SECRET", "OAUTH_CLIENT_SECRET"],
	signingKey: ["YAQA_BOT_SIGNING_KEY"],
} as const satisfies Readonly<Record<keyof Secrets, readonly string[]>>;

/** A header value: HTTP carries no other characters. */
const headerText = z
	.string()
	.min(1)
	.max(1000)
	.regex(/^[\x21-\x7e]+$/, "printable ASCII without spaces");

function isEd25519(pem: string): boolean {
	try {
		return createPrivateKey(pem).asymmetricKeyType === "ed25519";
	} catch {
		return false;
	}
}

export const secretSchemas = {
	publisherToken: headerText,
	readToken: headerText,
	webhookSecret: headerText.min(8, "at least 8 characters"),
	previousWebhookSecret: headerText.min(8, "at least 8 characters"),
	databaseUrl: z.string().regex(/^postgres(ql)?:\/\//, "an address that starts with postgres://"),
	stagingToken: headerText,
	jobsToken: headerText,
	gitHubAppKey: z
		.string()
		.max(20_000)
		// Some secret stores take one line only.
		.transform((text) => text.replaceAll("\\n", "\n"))
		.refine((text) => /^-----BEGIN [A-Z ]*PRIVATE KEY-----\n/.test(text), "a private key in PEM form"),
	gitHubWebhookSecret: headerText.min(16, "at least 16 characters"),
	previousGitHubWebhookSecret: headerText.min(16, "at least 16 characters"),
	operatorToken: headerText.min(24, "at least 24 characters"),
	oauthClientSecret: headerText.min(16, "at least 16 characters"),
	signingKey: z
		.string()
		.max(2000)
		.transform((text) => text.replaceAll("\\n", "\n"))
		.refine(isEd25519, "an Ed25519 private key in PEM form"),
} as const satisfies Readonly<Record<keyof Secrets, z.ZodType<string>>>;
