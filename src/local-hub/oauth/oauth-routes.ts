import { type Request, Router } from "express";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { z } from "zod";
import { type HubContext, parsedBody } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { newId } from "../identifiers.ts";
import { avatarUrl } from "../people.ts";
import { formBody } from "../routes/body-parsers.ts";
import { isSecretOf, OAUTH_SCOPES, type OAuthApp } from "./oauth-apps.ts";
import { type Consent, TOKEN_SECONDS } from "./oauth-grants.ts";

const ID_TOKEN_SECONDS = 3600;

/** The app that a token request comes from, by its secret: as Basic, or in the form. */
function appOf(context: HubContext, request: Request, body: z.infer<typeof TokenRequest>): OAuthApp {
	const [, encoded] = /^Basic\s+(\S+)$/.exec(request.headers.authorization ?? "") ?? [];
	const [, id, secret] =
		encoded === undefined
			? ["", body.client_id ?? "", body.client_secret ?? ""]
			: (/^([^:]*):(.*)$/s.exec(Buffer.from(encoded, "base64").toString("utf8")) ?? []).map((part) =>
					decodeURIComponent(part.replaceAll("+", " ")),
				);
	const app = context.oauthApps.get(id ?? "");
	if (app === undefined || !isSecretOf(app, secret ?? "")) {
		throw new HubError(401, "invalid_client", {
			headers: { "WWW-Authenticate": "Basic" },
			body: { error_description: "Invalid client credentials" },
		});
	}
	return app;
}

const TokenRequest = z.object({
	grant_type: z.string().max(100),
	code: z.string().max(1000).optional(),
	redirect_uri: z.string().max(2000).optional(),
	code_verifier: z
		.string()
		.regex(/^[A-Za-z0-9._~-]{43,128}$/)
		.optional(),
	client_id: z.string().max(200).optional(),
	client_secret: z.string().max(1000).optional(),
});

function userInfo(context: HubContext, { user, scopes, organizations }: Consent): Record<string, unknown> {
	const hasProfile = scopes.includes("profile");
	const now = context.accounts.user(user.name) ?? user;
	return {
		sub: user.id,
		...(hasProfile
			? {
					name: now.fullname,
					preferred_username: now.name,
					profile: `${context.origin()}/${now.name}`,
					picture: avatarUrl(context, now.name),
				}
			: {}),
		...(scopes.includes("email") ? { email: now.email, email_verified: true } : {}),
		isPro: false,
		orgs: [...now.orgs].map(([name, role]) => ({
			sub: context.accounts.organization(name)?.id ?? "",
			name: context.accounts.organization(name)?.fullname ?? name,
			picture: avatarUrl(context, name),
			preferred_username: name,
			// Of others the Hub says that one belongs to them, and no more.
			...(organizations.includes(name) ? { roleInOrg: role } : {}),
		})),
	};
}

function idTokenOf(
	{ consent, nonce }: { readonly consent: Consent; readonly nonce: string | null },
	by: { readonly app: OAuthApp; readonly issuer: string; readonly now: Date },
): SignJWT {
	const { user, scopes } = consent;
	const seconds = Math.floor(by.now.getTime() / 1000);
	return new SignJWT({
		...(scopes.includes("profile") ? { name: user.fullname, preferred_username: user.name } : {}),
		...(nonce === null ? {} : { nonce }),
	})
		.setIssuer(by.issuer)
		.setSubject(user.id)
		.setAudience(by.app.clientId)
		.setIssuedAt(seconds)
		.setExpirationTime(seconds + ID_TOKEN_SECONDS);
}

/** What an app asks when people sign in to it: where to send them, tokens for codes, and who they are. */
export function oauthRoutes(context: HubContext): Router {
	const router = Router();
	const keyId = newId();
	let made: ReturnType<typeof generateKeyPair> | null = null;
	const keys = () => {
		made ??= generateKeyPair("RS256");
		return made;
	};

	router.get("/.well-known/openid-configuration", (_request, response) => {
		const origin = context.origin();
		response.json({
			issuer: origin,
			authorization_endpoint: `${origin}/oauth/authorize`,
			token_endpoint: `${origin}/oauth/token`,
			userinfo_endpoint: `${origin}/oauth/userinfo`,
			jwks_uri: `${origin}/oauth/jwks`,
			scopes_supported: OAUTH_SCOPES,
			response_types_supported: ["code"],
			grant_types_supported: ["authorization_code"],
			code_challenge_methods_supported: ["S256"],
			subject_types_supported: ["public"],
			id_token_signing_alg_values_supported: ["RS256"],
			token_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post"],
		});
	});

	router.get("/oauth/jwks", async (_request, response) => {
		const { publicKey } = await keys();
		response.json({ keys: [{ ...(await exportJWK(publicKey)), kid: keyId, alg: "RS256", use: "sig" }] });
	});

	router.post("/oauth/token", formBody, async (request, response) => {
		response.set("Cache-Control", "no-store");
		const body = parsedBody(TokenRequest, request);
		const app = appOf(context, request, body);
		const refuse = (error: string, description: string): void => {
			response.status(400).json({ error, error_description: description });
		};
		if (body.grant_type !== "authorization_code") {
			refuse("unsupported_grant_type", "Only authorization_code");
			return;
		}
		const redeemed = context.oauthGrants.redeem({
			app,
			code: body.code ?? "",
			redirectUri: body.redirect_uri ?? "",
			verifier: body.code_verifier ?? null,
		});
		if (!redeemed.ok) {
			refuse("invalid_grant", redeemed.message);
			return;
		}
		const { scopes } = redeemed.consent;
		const idToken = scopes.includes("openid")
			? await idTokenOf(redeemed, { app, issuer: context.origin(), now: context.clock.now() })
					.setProtectedHeader({ alg: "RS256", kid: keyId })
					.sign((await keys()).privateKey)
			: null;
		response.json({
			access_token: redeemed.accessToken,
			token_type: "bearer",
			expires_in: TOKEN_SECONDS,
			scope: scopes.join(" "),
			...(idToken === null ? {} : { id_token: idToken }),
		});
	});

	for (const method of ["get", "post"] as const) {
		router[method]("/oauth/userinfo", (request, response) => {
			const consent = context.oauthGrants.consentOf(request.headers.authorization);
			if (consent === null) throw new HubError(401, "Only available through OAuth access tokens.");
			response.set("Cache-Control", "no-store").json(userInfo(context, consent));
		});
	}
	return router;
}
