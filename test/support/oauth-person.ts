import assert from "node:assert/strict";
import type { LocalHubOAuthApp } from "../../src/local-hub/oauth/oauth-apps.ts";

export const CLIENT_ID = "local-app";
export const CLIENT_SECRET = "local-app-secret-of-tests";

export function oauthApp(redirectUri: string): LocalHubOAuthApp {
	return {
		clientId: CLIENT_ID,
		clientSecret: CLIENT_SECRET,
		name: "yaqa-bot of the tests",
		redirectUris: [redirectUri],
		scopes: ["openid", "profile", "read-repos"],
	};
}

function field(page: string, name: string): string {
	const [, value] = new RegExp(`name="${name}" value="([^"]+)"`).exec(page) ?? [];
	assert.ok(value !== undefined, `the page has no field ${name}`);
	return value;
}

/** What a person does on the Hub's page: chooses who they are, and lets the app or not. Where they are sent then. */
export async function consentOnHub(
	authorizeUrl: string,
	user: string,
	options: { readonly decision?: "allow" | "deny"; readonly organizations?: readonly string[] } = {},
): Promise<URL> {
	const page = await fetch(authorizeUrl, { headers: { Accept: "text/html" } });
	const text = await page.text();
	assert.equal(page.status, 200, text);
	const form = new URLSearchParams({
		request: field(text, "request"),
		user,
		decision: options.decision ?? "allow",
	});
	for (const name of options.organizations ?? []) form.append("organizations", name);
	const answer = await fetch(new URL("/oauth/authorize", authorizeUrl), {
		method: "POST",
		body: form,
		redirect: "manual",
	});
	assert.equal(answer.status, 303, await answer.text());
	return new URL(answer.headers.get("location") ?? "");
}

/** A token by which an app that needs no PKCE reads for a person. */
export async function signedInToken(
	hubUrl: string,
	redirectUri: string,
	user: string,
	organizations: readonly string[],
): Promise<string> {
	const asked = new URLSearchParams({
		client_id: CLIENT_ID,
		redirect_uri: redirectUri,
		response_type: "code",
		scope: "openid profile read-repos",
	});
	const sent = await consentOnHub(`${hubUrl}/oauth/authorize?${asked.toString()}`, user, { organizations });
	const answer = await fetch(`${hubUrl}/oauth/token`, {
		method: "POST",
		body: new URLSearchParams({
			grant_type: "authorization_code",
			code: sent.searchParams.get("code") ?? "",
			redirect_uri: redirectUri,
			client_id: CLIENT_ID,
			client_secret: CLIENT_SECRET,
		}),
	});
	const body: unknown = await answer.json();
	assert.ok(typeof body === "object" && body !== null && "access_token" in body, JSON.stringify(body));
	return String(body.access_token);
}
