import { randomBytes } from "node:crypto";
import type { Clock } from "../../clock.ts";
import type { Accounts, Identity, User } from "../accounts.ts";
import { digestOf } from "../digest.ts";
import { HubError } from "../hub-error.ts";
import type { OAuthApp, OAuthScope } from "./oauth-apps.ts";

const CODE_SECONDS = 60;
export const TOKEN_SECONDS = 8 * 3600;
const TOKEN_PREFIX = "hf_oauth_";

/** What a person let an app do. */
export type Consent = {
	readonly app: OAuthApp;
	readonly user: User;
	readonly scopes: readonly OAuthScope[];
	/** Organizations whose resources it may reach. */
	readonly organizations: readonly string[];
};

type Code = Consent & {
	readonly redirectUri: string;
	/** S256 of the verifier. */
	readonly challenge: string | null;
	readonly nonce: string | null;
	readonly expiresAt: number;
	/** What was given for it. */
	token: string | null;
};

export type Redeemed =
	| { readonly ok: true; readonly accessToken: string; readonly consent: Consent; readonly nonce: string | null }
	| { readonly ok: false; readonly message: string };

export type OAuthGrants = {
	/** A code that is redeemed once, soon. */
	grant(
		consent: Consent & {
			readonly redirectUri: string;
			readonly challenge: string | null;
			readonly nonce: string | null;
		},
	): string;
	redeem(request: {
		readonly app: OAuthApp;
		readonly code: string;
		readonly redirectUri: string;
		readonly verifier: string | null;
	}): Redeemed;
	/** Whom an `Authorization` header speaks for; `null`: it holds none of these tokens. 401: one that has run out. */
	consentOf(header: string | undefined): Consent | null;
	/** Ends every token of a person, as they can in their settings. */
	revoke(userName: string): void;
};

/** Keeps codes and tokens while the Hub runs; whoever is signed in after that signs in again. */
export function createOAuthGrants(clock: Clock): OAuthGrants {
	const codes = new Map<string, Code>();
	const tokens = new Map<string, { readonly consent: Consent; readonly expiresAt: number }>();
	const now = (): number => clock.now().getTime();
	const key = (secret: string): string => digestOf(secret).toString("hex");

	return {
		grant(consent) {
			for (const [known, code] of codes) if (code.expiresAt + TOKEN_SECONDS * 1000 < now()) codes.delete(known);
			const code = randomBytes(24).toString("base64url");
			codes.set(key(code), { ...consent, expiresAt: now() + CODE_SECONDS * 1000, token: null });
			return code;
		},
		redeem({ app, code: given, redirectUri, verifier }) {
			const code = codes.get(key(given));
			if (code === undefined || code.app.clientId !== app.clientId) return { ok: false, message: "Invalid code" };
			if (code.token !== null) {
				// Somebody else has it too: what was given for it counts no longer.
				tokens.delete(code.token);
				return { ok: false, message: "The code was used already" };
			}
			if (code.expiresAt < now()) return { ok: false, message: "The code has expired" };
			if (code.redirectUri !== redirectUri) return { ok: false, message: "redirect_uri is another than the code's" };
			if (code.challenge === null ? verifier !== null : verifier === null) {
				return { ok: false, message: "code_verifier is missing, or there was no code_challenge" };
			}
			if (verifier !== null && digestOf(verifier).toString("base64url") !== code.challenge) {
				return { ok: false, message: "code_verifier is not the code_challenge's" };
			}
			const accessToken = `${TOKEN_PREFIX}${randomBytes(32).toString("base64url")}`;
			const { user, scopes, organizations, nonce } = code;
			const consent = { app, user, scopes, organizations };
			code.token = key(accessToken);
			tokens.set(code.token, { consent, expiresAt: now() + TOKEN_SECONDS * 1000 });
			return { ok: true, accessToken, consent, nonce };
		},
		consentOf(header) {
			const [, token] = /^Bearer\s+(hf_oauth_\S+)$/.exec(header ?? "") ?? [];
			if (token === undefined) return null;
			const known = tokens.get(key(token));
			if (known === undefined || known.expiresAt < now()) {
				throw new HubError(401, "Invalid credentials in Authorization header");
			}
			return known.consent;
		},
		revoke(userName) {
			for (const [known, { consent }] of tokens) if (consent.user.name === userName) tokens.delete(known);
		},
	};
}

/** What the person's consent lets an app do of what the person may: here, to read. */
export function identityOfConsent({ app, user, scopes, organizations }: Consent, accounts: Accounts): Identity {
	const reads = scopes.some((scope) => ["read-repos", "write-repos", "manage-repos"].includes(scope));
	const member = accounts.user(user.name) ?? user;
	return {
		user: member,
		token: {
			displayName: app.name,
			role: "fineGrained",
			writeNamespaces: reads ? [user.name, ...organizations.filter((name) => member.orgs.has(name))] : [],
			permissions: ["repo.content.read"],
			discussions: false,
			webhooks: false,
		},
	};
}
