import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { z } from "zod";
import { type LocalHubOrganization, type LocalHubUser, SCOPED_PERMISSIONS } from "./accounts.ts";
import { type LocalHubOAuthApp, OAUTH_SCOPES } from "./oauth/oauth-apps.ts";

const TokenFields = {
	token: z.string().regex(/^hf_[A-Za-z0-9._-]{3,}$/, "a token starts with hf_, or stock clients refuse it"),
	role: z.enum(["read", "write", "fineGrained"]).optional(),
	writeNamespaces: z.array(z.string()).optional(),
	permissions: z.array(z.enum(SCOPED_PERMISSIONS)).optional(),
	discussions: z.boolean().optional(),
	webhooks: z.boolean().optional(),
} as const;

const UsersFile = z.strictObject({
	users: z
		.array(
			z.strictObject({
				...TokenFields,
				name: z.string(),
				fullname: z.string().optional(),
				email: z.string().optional(),
				orgs: z
					.array(z.strictObject({ name: z.string(), role: z.enum(["admin", "write", "contributor", "read"]) }))
					.optional(),
				moreTokens: z.array(z.strictObject({ ...TokenFields, name: z.string().optional() })).optional(),
			}),
		)
		.min(1),
	organizations: z
		.array(
			z.strictObject({
				name: z.string(),
				fullname: z.string().optional(),
				refusesWebhooks: z.boolean().optional(),
			}),
		)
		.optional(),
	oauthApps: z
		.array(
			z.strictObject({
				clientId: z.string().min(1).max(200),
				clientSecret: z.string().min(16).max(1000),
				name: z.string().min(1).max(200),
				redirectUris: z.array(z.url({ protocol: /^https?$/ })).min(1),
				scopes: z.array(z.enum(OAUTH_SCOPES)).optional(),
			}),
		)
		.optional(),
	legacyNames: z.record(z.string().regex(/^[A-Za-z0-9._-]+$/), z.string().regex(/^[^/\s]+\/[^/\s]+$/)).optional(),
});

/** Who is on a local Hub: a YAML or JSON file of users with their tokens, and of organizations, and the apps that they sign in to. Throws what is wrong with it. */
export function readUsersFile(path: string): {
	readonly users: readonly LocalHubUser[];
	readonly organizations: readonly LocalHubOrganization[];
	readonly oauthApps: readonly LocalHubOAuthApp[];
	readonly legacyNames: Readonly<Record<string, string>>;
} {
	let value: unknown;
	try {
		value = parse(readFileSync(path, "utf8"));
	} catch (error) {
		throw new Error(`${path}: ${error instanceof Error ? error.message.split("\n", 1)[0] : String(error)}`);
	}
	const parsed = UsersFile.safeParse(value);
	if (!parsed.success) {
		const [issue] = parsed.error.issues;
		throw new Error(`${path}, at ${issue?.path.join(".") || "its top"}: ${issue?.message ?? "not a users file"}.`);
	}
	const { users, organizations = [], oauthApps = [], legacyNames = {} } = parsed.data;
	return { users, organizations, oauthApps, legacyNames };
}
