import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { createSignInProvider } from "../../../src/hub/sign-in-provider.ts";

type Claims = { iss: string; aud: string; sub?: string; nonce: string; exp: number };

/** What the provider answers with, for one code. */
type Answer = (claims: Claims) => Promise<Record<string, unknown>>;

const SECONDS = Math.floor(Date.now() / 1000);
const ATTEMPT = { state: "the state", nonce: "the nonce", verifier: "v".repeat(43) };
const keys = await generateKeyPair("RS256");
const strangers = await generateKeyPair("RS256");
const answers = new Map<string, Answer>();
let url = "";

function sign(claims: Claims, key = keys.privateKey, kid = "1"): Promise<string> {
	return new SignJWT({ ...claims }).setProtectedHeader({ alg: "RS256", kid }).setIssuedAt(SECONDS).sign(key);
}

const server = createServer(async (request, response) => {
	const send = (body: unknown) => response.setHeader("Content-Type", "application/json").end(JSON.stringify(body));
	if (request.url === "/.well-known/openid-configuration") {
		send({
			issuer: url,
			authorization_endpoint: `${url}/oauth/authorize`,
			token_endpoint: `${url}/oauth/token`,
			jwks_uri: `${url}/oauth/jwks`,
			response_types_supported: ["code"],
			subject_types_supported: ["public"],
			id_token_signing_alg_values_supported: ["RS256"],
		});
	} else if (request.url === "/oauth/jwks") {
		send({ keys: [{ ...(await exportJWK(keys.publicKey)), kid: "1", alg: "RS256", use: "sig" }] });
	} else {
		let body = "";
		for await (const chunk of request) body += String(chunk);
		const claims = { iss: url, aud: "app", sub: "ann", nonce: ATTEMPT.nonce, exp: SECONDS + 60 };
		const answer = answers.get(new URLSearchParams(body).get("code") ?? "");
		assert.ok(answer !== undefined);
		send({ access_token: "hf_oauth_x", token_type: "bearer", expires_in: 100, ...(await answer(claims)) });
	}
});
before(async () => {
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	assert.ok(typeof address === "object" && address !== null);
	url = `http://127.0.0.1:${address.port}`;
});
after(() => {
	server.closeAllConnections();
	server.close();
});

async function finish(answer: Answer, query = "?code=a-code&state=the+state") {
	answers.set("a-code", answer);
	const provider = createSignInProvider({
		hubUrl: url,
		clientId: "app",
		clientSecret: "a secret of the app",
		redirectUri: "http://127.0.0.1:9/auth/callback",
	});
	return await provider.finish(query, ATTEMPT);
}

test("an id token of the Hub's own key, for this app and this attempt, says who it is", async () => {
	const result = await finish(async (claims) => ({ id_token: await sign(claims) }));
	assert.deepEqual(result, { ok: true, subject: "ann", accessToken: "hf_oauth_x", seconds: 100 });
});

test("any other id token says nothing", async () => {
	const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
	const tampered = async (claims: Claims) => {
		const [head, , signature] = (await sign(claims)).split(".");
		return `${head}.${part({ ...claims, sub: "somebody else", iat: SECONDS })}.${signature}`;
	};
	const tokens: Readonly<Record<string, (claims: Claims) => Promise<string> | string>> = {
		"of another key": (claims) => sign(claims, strangers.privateKey),
		"of a key that the Hub does not have": (claims) => sign(claims, strangers.privateKey, "2"),
		"changed after it was signed": tampered,
		"without a signature": (claims) => `${part({ alg: "none" })}.${part({ ...claims, iat: SECONDS })}.`,
		"for another app": (claims) => sign({ ...claims, aud: "another" }),
		"of another provider": (claims) => sign({ ...claims, iss: "https://elsewhere.example" }),
		"for another attempt": (claims) => sign({ ...claims, nonce: "another" }),
		"that has run out": (claims) => sign({ ...claims, exp: SECONDS - 100 }),
		"of nobody": ({ sub: _nobody, ...claims }) => sign(claims),
		"that is none": () => "a.b.c",
	};
	for (const [what, token] of Object.entries(tokens)) {
		const result = await finish(async (claims) => ({ id_token: await token(claims) }));
		assert.equal(result.ok ? "signed in" : result.reason, "refused", what);
		if (!result.ok) assert.doesNotMatch(result.detail, /hf_oauth_|a secret|somebody else/, what);
	}
	assert.equal((await finish(async () => ({}))).ok, false, "none at all");
});

test("only a query of this attempt is looked at", async () => {
	const good: Answer = async (claims) => ({ id_token: await sign(claims) });
	for (const query of [
		"",
		"?code=a-code",
		"?code=a-code&state=another",
		"?code=a-code&state=the+state&iss=https%3A%2F%2Fx",
	]) {
		const result = await finish(good, query);
		assert.equal(result.ok ? "signed in" : result.reason, "refused", query);
	}
	const twice = await finish(good, "?code=a-code&state=the+state&state=another");
	assert.equal(twice.ok, false);
	const denied = await finish(good, "?error=access_denied&state=the+state");
	assert.equal(denied.ok ? "" : denied.reason, "denied");
});
