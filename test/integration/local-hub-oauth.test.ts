import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { createRemoteJWKSet, jwtVerify } from "jose";
import type { LocalHub } from "../../src/local-hub/start-local-hub.ts";
import { at, call, createRepo, testHub, textAt } from "../support/local-hub-fixture.ts";
import { CLIENT_ID, CLIENT_SECRET, consentOnHub, oauthApp } from "../support/oauth-person.ts";

const BACK = "http://127.0.0.1:9/auth/callback";
const VERIFIER = "v".repeat(43);
const CHALLENGE = createHash("sha256").update(VERIFIER).digest("base64url");

function authorizeUrl(hub: LocalHub, changes: Readonly<Record<string, string>> = {}): string {
	const asked = {
		client_id: CLIENT_ID,
		redirect_uri: BACK,
		response_type: "code",
		scope: "openid profile read-repos",
		state: "a state",
		nonce: "a nonce",
		code_challenge: CHALLENGE,
		code_challenge_method: "S256",
		...changes,
	};
	return `${hub.url}/oauth/authorize?${new URLSearchParams(asked).toString()}`;
}

async function redeem(hub: LocalHub, changes: Readonly<Record<string, string>>, secret = CLIENT_SECRET) {
	const body = new URLSearchParams({ grant_type: "authorization_code", redirect_uri: BACK, code_verifier: VERIFIER });
	for (const [name, value] of Object.entries(changes)) body.set(name, value);
	return await call(`${hub.url}/oauth/token`, {
		method: "POST",
		body: body.toString(),
		headers: {
			"Content-Type": "application/x-www-form-urlencoded",
			Authorization: `Basic ${Buffer.from(`${CLIENT_ID}:${secret}`).toString("base64")}`,
		},
	});
}

async function codeOf(hub: LocalHub, user = "owner", organizations: readonly string[] = ["lab"]): Promise<string> {
	const sent = await consentOnHub(authorizeUrl(hub), user, { organizations });
	assert.equal(sent.origin + sent.pathname, BACK);
	assert.equal(sent.searchParams.get("state"), "a state");
	return sent.searchParams.get("code") ?? "";
}

test("a person's consent becomes a token that reads what they may, and who they are, signed", async (context) => {
	const hub = await testHub(context, { oauthApps: [oauthApp(BACK)] });
	await createRepo(hub, "owner/own", undefined, { private: true });
	await createRepo(hub, "lab/shared", undefined, { private: true });
	const discovery = (await call(`${hub.url}/.well-known/openid-configuration`)).json;
	assert.equal(textAt(discovery, "issuer"), hub.url);
	const answer = await redeem(hub, { code: await codeOf(hub) });
	assert.equal(answer.status, 200, answer.text);
	const keys = createRemoteJWKSet(new URL(textAt(discovery, "jwks_uri")));
	const { payload } = await jwtVerify(textAt(answer.json, "id_token"), keys, { issuer: hub.url, audience: CLIENT_ID });
	assert.equal(payload["nonce"], "a nonce");
	const token = textAt(answer.json, "access_token");
	const info = (await call(textAt(discovery, "userinfo_endpoint"), { token })).json;
	assert.equal(textAt(info, "preferred_username"), "owner");
	assert.equal(textAt(info, "sub"), payload.sub);
	assert.equal(textAt(info, "orgs.0.roleInOrg"), "admin");
	assert.equal((await call(`${hub.url}/api/models/owner/own`, { token })).status, 200);
	assert.equal((await call(`${hub.url}/api/models/lab/shared`, { token })).status, 200);
	const made = await call(`${hub.url}/api/repos/create`, { token, body: { name: "more" } });
	assert.equal(made.status, 403, "it reads, and no more");
	const without = await redeem(hub, { code: await codeOf(hub, "owner", []) });
	const smaller = textAt(without.json, "access_token");
	assert.equal((await call(`${hub.url}/api/models/owner/own`, { token: smaller })).status, 200);
	assert.equal((await call(`${hub.url}/api/models/lab/shared`, { token: smaller })).status, 404);
	const little = (await call(`${hub.url}/oauth/userinfo`, { token: smaller })).json;
	assert.equal(at(little, "orgs.0.roleInOrg"), undefined);
	hub.revokeApps("owner");
	assert.equal((await call(`${hub.url}/oauth/userinfo`, { token })).status, 401);
});

test("a code is redeemed once, by its app, with its verifier and address", async (context) => {
	const hub = await testHub(context, { oauthApps: [oauthApp(BACK)] });
	const refused = async (changes: Readonly<Record<string, string>>, secret?: string) => {
		const answer = await redeem(hub, { code: await codeOf(hub), ...changes }, secret);
		return `${answer.status} ${textAt(answer.json, "error")}`;
	};
	assert.equal(await refused({ code_verifier: "w".repeat(43) }), "400 invalid_grant");
	assert.equal(await refused({ redirect_uri: `${BACK}/` }), "400 invalid_grant");
	assert.equal(await refused({ code: "no code" }), "400 invalid_grant");
	assert.equal(await refused({ grant_type: "password" }), "400 unsupported_grant_type");
	assert.equal(await refused({}, "another secret"), "401 invalid_client");
	const code = await codeOf(hub);
	const first = await redeem(hub, { code });
	const second = await redeem(hub, { code });
	assert.equal(`${second.status} ${textAt(second.json, "error")}`, "400 invalid_grant");
	const token = textAt(first.json, "access_token");
	assert.equal(
		(await call(`${hub.url}/oauth/userinfo`, { token })).status,
		401,
		"what was given for it counts no longer",
	);
});

test("who asks wrongly is sent back with the fault, and nowhere but to the app's own address", async (context) => {
	let now = Date.now();
	const hub = await testHub(context, { oauthApps: [oauthApp(BACK)], clock: { now: () => new Date(now) } });
	for (const changes of [
		{ client_id: "nobody" },
		{ redirect_uri: "http://elsewhere.example/" },
		{ redirect_uri: `${BACK}?x` },
	]) {
		assert.equal((await call(authorizeUrl(hub, changes))).status, 400);
	}
	const faultOf = async (changes: Readonly<Record<string, string>>) => {
		const answer = await call(authorizeUrl(hub, changes));
		const back = new URL(answer.headers.get("location") ?? "");
		assert.equal(`${back.origin}${back.pathname}`, BACK);
		return back.searchParams.get("error");
	};
	assert.equal(await faultOf({ response_type: "token" }), "unsupported_response_type");
	assert.equal(await faultOf({ scope: "openid manage-repos" }), "invalid_scope");
	assert.equal(await faultOf({ code_challenge_method: "plain" }), "invalid_request");
	const denied = await consentOnHub(authorizeUrl(hub), "owner", { decision: "deny" });
	assert.equal(denied.searchParams.get("error"), "access_denied");
	const late = await codeOf(hub);
	now += 61_000;
	assert.equal((await redeem(hub, { code: late })).status, 400, "a code lasts a minute");
});
