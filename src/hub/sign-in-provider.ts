import * as oidc from "openid-client";

/** What is remembered of a sign-in between leaving for the Hub and coming back. */
export type SignInAttempt = {
	readonly state: string;
	readonly nonce: string;
	/** Of PKCE: proves that who comes back is who left. */
	readonly verifier: string;
};

type SignInResult =
	| {
			readonly ok: true;
			/** The account's own number, from the signed id token. */
			readonly subject: string;
			readonly accessToken: string;
			readonly seconds: number;
	  }
	/** `detail` for the log: no secrets, no code. */
	| { readonly ok: false; readonly reason: "denied" | "refused" | "unreachable"; readonly detail: string };

export type SignInProvider = {
	/** Where to send the person. Throws where the Hub cannot be asked. */
	begin(): Promise<{ readonly url: string; readonly attempt: SignInAttempt }>;
	/** `query`: what the Hub sent the person back with. */
	finish(query: string, attempt: SignInAttempt): Promise<SignInResult>;
	/** What the Hub does not take of the app; throws where it cannot be asked. */
	check(): Promise<"fine" | "secret" | "address">;
};

/** Reads repos in the person's name, and writes nothing. */
const SCOPE = "openid profile read-repos";
const TIMEOUT_SECONDS = 10;
const SECONDS_WHERE_UNSAID = 3600;

/** Which claim of the id token is not as expected; its value stays out. */
function claimOf(cause: unknown): string {
	return typeof cause === "object" && cause !== null && "claim" in cause ? ` (${String(cause.claim)})` : "";
}

/** An error and what it came of, as far as that is told. */
function causesOf(error: unknown): readonly unknown[] {
	const causes: unknown[] = [];
	for (let at = error; at !== undefined && at !== null && causes.length < 10; ) {
		causes.push(at);
		at = at instanceof Error ? at.cause : null;
	}
	return causes;
}

/** Whether nobody answered, or somebody who could not just then. */
function isUnreachable(error: unknown): boolean {
	return causesOf(error).some((cause) => {
		if (cause instanceof oidc.ResponseBodyError) return cause.status >= 500 || cause.status === 429;
		if (cause instanceof Response) return cause.status >= 500 || cause.status === 429;
		if (cause instanceof oidc.ClientError) return cause.code === "OAUTH_TIMEOUT";
		return cause instanceof TypeError && cause.message === "fetch failed";
	});
}

function resultOf(error: unknown): SignInResult {
	if (error instanceof oidc.AuthorizationResponseError) {
		const denied = error.error === "access_denied";
		return { ok: false, reason: denied ? "denied" : "refused", detail: `the Hub says ${error.error}` };
	}
	const reason = isUnreachable(error) ? "unreachable" : "refused";
	if (error instanceof oidc.ResponseBodyError) return { ok: false, reason, detail: `the Hub says ${error.error}` };
	const code = error instanceof oidc.ClientError ? `${error.code ?? "no code"}: ` : "";
	const message = error instanceof Error ? error.message : String(error);
	return { ok: false, reason, detail: `${code}${message}${causesOf(error).map(claimOf).join("")}` };
}

/** Signing in with an account of the Hub: OpenID Connect, the code flow with PKCE, state and nonce. */
export function createSignInProvider(options: {
	readonly hubUrl: string;
	readonly clientId: string;
	readonly clientSecret: string;
	readonly redirectUri: string;
}): SignInProvider {
	const { hubUrl, clientId, clientSecret, redirectUri } = options;
	const issuer = new URL(hubUrl);
	let known: Promise<oidc.Configuration> | null = null;

	function configuration(): Promise<oidc.Configuration> {
		known ??= oidc
			.discovery(issuer, clientId, clientSecret, undefined, {
				timeout: TIMEOUT_SECONDS,
				execute: [
					// A Hub of one's own, on this machine, may have no certificate.
					...(issuer.protocol === "http:" ? [oidc.allowInsecureRequests] : []),
					oidc.enableNonRepudiationChecks,
				],
			})
			.catch((error: unknown) => {
				known = null;
				throw error;
			});
		return known;
	}

	return {
		async begin() {
			const provider = await configuration();
			const attempt = {
				state: oidc.randomState(),
				nonce: oidc.randomNonce(),
				verifier: oidc.randomPKCECodeVerifier(),
			};
			const url = oidc.buildAuthorizationUrl(provider, {
				redirect_uri: redirectUri,
				scope: SCOPE,
				state: attempt.state,
				nonce: attempt.nonce,
				code_challenge: await oidc.calculatePKCECodeChallenge(attempt.verifier),
				code_challenge_method: "S256",
			});
			return { url: url.href, attempt };
		},
		async finish(query, attempt) {
			try {
				const tokens = await oidc.authorizationCodeGrant(await configuration(), new URL(`${redirectUri}${query}`), {
					expectedState: attempt.state,
					expectedNonce: attempt.nonce,
					pkceCodeVerifier: attempt.verifier,
					idTokenExpected: true,
				});
				const claims = tokens.claims();
				if (claims === undefined) return { ok: false, reason: "refused", detail: "no id token" };
				return {
					ok: true,
					subject: claims.sub,
					accessToken: tokens.access_token,
					seconds: tokens.expiresIn() ?? SECONDS_WHERE_UNSAID,
				};
			} catch (error) {
				return resultOf(error);
			}
		},
		async check() {
			const { url, attempt } = await this.begin();
			const page = await fetch(url, { redirect: "manual", signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000) });
			await page.body?.cancel();
			if (page.status === 400) return "address";
			// A code that nobody was given: whose secret is right is told that, and not that it is somebody else.
			const query = `?${new URLSearchParams({ code: "yaqa-bot-doctor", state: attempt.state }).toString()}`;
			const result = await this.finish(query, attempt);
			return !result.ok && /invalid_grant/.test(result.detail) ? "fine" : "secret";
		},
	};
}
