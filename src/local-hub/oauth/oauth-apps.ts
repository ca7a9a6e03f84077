import { timingSafeEqual } from "node:crypto";
import { digestOf } from "../digest.ts";

/** What the Hub lets an app ask people for. */
export const OAUTH_SCOPES = [
	"openid",
	"profile",
	"email",
	"read-billing",
	"read-repos",
	"gated-repos",
	"contribute-repos",
	"write-repos",
	"manage-repos",
	"read-collections",
	"write-collections",
	"inference-api",
	"jobs",
	"webhooks",
	"write-discussions",
] as const;
export type OAuthScope = (typeof OAUTH_SCOPES)[number];

/** A program that people sign in to with their account here. */
export type LocalHubOAuthApp = {
	readonly clientId: string;
	readonly clientSecret: string;
	readonly name: string;
	/** Exactly as requests name them. */
	readonly redirectUris: readonly string[];
	/** What it may ask for. */
	readonly scopes?: readonly OAuthScope[] | undefined;
};

export type OAuthApp = Omit<LocalHubOAuthApp, "scopes"> & { readonly scopes: readonly OAuthScope[] };

const DEFAULT_SCOPES: readonly OAuthScope[] = ["openid", "profile"];

/** The apps by their id. Throws where one is not as the Hub would register it. */
export function oauthApps(registered: readonly LocalHubOAuthApp[]): ReadonlyMap<string, OAuthApp> {
	const apps = new Map<string, OAuthApp>();
	for (const app of registered) {
		if (apps.has(app.clientId)) throw new Error(`Two OAuth apps have the id ${app.clientId}.`);
		for (const uri of app.redirectUris) {
			if (!URL.canParse(uri) || !/^https?:$/.test(new URL(uri).protocol) || uri.includes("#")) {
				throw new Error(`Not an address that the OAuth app ${app.name} could send people back to: ${uri}.`);
			}
		}
		apps.set(app.clientId, { ...app, scopes: app.scopes ?? DEFAULT_SCOPES });
	}
	return apps;
}

/** Whether the secret is the app's; takes as long for a wrong one. */
export function isSecretOf(app: OAuthApp, secret: string): boolean {
	return timingSafeEqual(digestOf(app.clientSecret), digestOf(secret));
}
