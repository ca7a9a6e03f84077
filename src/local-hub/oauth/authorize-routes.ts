import { type Request, type Response, Router } from "express";
import { z } from "zod";
import { type HubContext, parsedBody, queryText } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { formBody } from "../routes/body-parsers.ts";
import { authorizePage } from "./authorize-page.ts";
import { OAUTH_SCOPES, type OAuthApp, type OAuthScope } from "./oauth-apps.ts";

const REQUEST_SECONDS = 600;
const PURPOSE = "oauth-authorize";

type Asked = {
	readonly app: OAuthApp;
	readonly redirectUri: string;
	readonly scopes: readonly OAuthScope[];
	readonly state: string | null;
	readonly nonce: string | null;
	readonly challenge: string | null;
};

function sendBack(response: Response, redirectUri: string, parameters: Readonly<Record<string, string | null>>): void {
	const address = new URL(redirectUri);
	for (const [name, value] of Object.entries(parameters)) if (value !== null) address.searchParams.set(name, value);
	response.redirect(303, address.href);
}

/** What an app asks for; who names no app or another address is told here, since there is nowhere safe to send them. */
function readAsked(context: HubContext, request: Request): Asked | { readonly back: string; readonly error: string } {
	const app = context.oauthApps.get(queryText(request, "client_id") ?? "");
	if (app === undefined) throw new HubError(400, "Unknown client_id");
	const redirectUri = queryText(request, "redirect_uri") ?? "";
	if (!app.redirectUris.includes(redirectUri)) throw new HubError(400, "redirect_uri is not one of this app's");
	const refuse = (error: string) => ({ back: redirectUri, error });
	if (queryText(request, "response_type") !== "code") return refuse("unsupported_response_type");
	const words = (queryText(request, "scope") ?? "openid profile").split(" ").filter((word) => word !== "");
	const scopes = OAUTH_SCOPES.filter((scope) => words.includes(scope));
	if (scopes.length < new Set(words).size || !scopes.every((scope) => app.scopes.includes(scope))) {
		return refuse("invalid_scope");
	}
	const challenge = queryText(request, "code_challenge");
	if (challenge !== null && queryText(request, "code_challenge_method") !== "S256") return refuse("invalid_request");
	if (challenge !== null && !/^[A-Za-z0-9_-]{43}$/.test(challenge)) return refuse("invalid_request");
	return {
		app,
		redirectUri,
		scopes,
		state: queryText(request, "state"),
		nonce: queryText(request, "nonce"),
		challenge,
	};
}

const Decision = z.object({
	request: z.string().max(8000),
	user: z.string().max(96).optional(),
	organizations: z.union([z.string().max(96), z.array(z.string().max(96)).max(1000)]).optional(),
	decision: z.enum(["allow", "deny"]),
});

const Remembered = z.object({
	clientId: z.string(),
	redirectUri: z.string(),
	scopes: z.array(z.enum(OAUTH_SCOPES)),
	state: z.string().nullable(),
	nonce: z.string().nullable(),
	challenge: z.string().nullable(),
});

/** Where people say who they are, and whether an app may do what it asks for. */
export function authorizeRoutes(context: HubContext): Router {
	const router = Router();
	router.get("/oauth/authorize", (request, response) => {
		const asked = readAsked(context, request);
		if ("error" in asked) {
			sendBack(response, asked.back, { error: asked.error, state: queryText(request, "state") });
			return;
		}
		const { app, ...rest } = asked;
		const remembered = JSON.stringify({ ...rest, clientId: app.clientId });
		response.removeHeader("Access-Control-Allow-Origin");
		response
			.set({
				"Cache-Control": "no-store",
				// A browser holds the redirect after a form to this too.
				"Content-Security-Policy": `default-src 'none'; style-src 'unsafe-inline'; form-action 'self' ${new URL(asked.redirectUri).origin}; frame-ancestors 'none'`,
			})
			.type("html")
			.send(
				authorizePage({
					app,
					scopes: asked.scopes,
					users: context.accounts.users(),
					request: context.signer.sign(PURPOSE, [remembered], REQUEST_SECONDS),
				}),
			);
	});

	router.post("/oauth/authorize", formBody, (request, response) => {
		const decided = parsedBody(Decision, request);
		const [text] = context.signer.verify(PURPOSE, decided.request) ?? [];
		if (text === undefined) throw new HubError(400, "This page has expired: begin again at the app.");
		const asked = Remembered.parse(JSON.parse(text));
		const app = context.oauthApps.get(asked.clientId);
		if (app === undefined) throw new HubError(400, "Unknown client_id");
		const { redirectUri, state } = asked;
		if (decided.decision === "deny") {
			sendBack(response, redirectUri, { error: "access_denied", state });
			return;
		}
		const user = context.accounts.user(decided.user ?? "");
		if (user === null) throw new HubError(400, "There is no such user here.");
		const organizations = [decided.organizations ?? []].flat().filter((name) => user.orgs.has(name));
		const code = context.oauthGrants.grant({ ...asked, app, user, organizations });
		sendBack(response, redirectUri, { code, state });
	});
	return router;
}
