import assert from "node:assert/strict";
import { test } from "node:test";
import { listPrivateModels, personOfToken } from "../../../src/hub/person-of-token.ts";

const HUB = "http://hub.example";
const INFO = { sub: "0".repeat(24), preferred_username: "ann", orgs: [] };

/** A Hub that gives these answers by path, and notes who was asked with which token. */
function hubOf(answers: Readonly<Record<string, () => Response>>) {
	const asked: string[] = [];
	const send: typeof fetch = async (input, init) => {
		const address = String(input);
		asked.push(`${address} ${new Headers(init?.headers).get("authorization")}`);
		const answer = answers[address];
		assert.ok(answer !== undefined, address);
		return answer();
	};
	return { access: { hubUrl: HUB, accessToken: "hf_oauth_x", fetch: send }, asked };
}

test("who somebody is, is taken from the Hub's word only where it is of the form that names have", async () => {
	const answer = (body: unknown, status = 200) =>
		personOfToken(hubOf({ [`${HUB}/oauth/userinfo`]: () => Response.json(body, { status }) }).access);
	const organizations = [
		{ preferred_username: "acme", roleInOrg: "read" },
		{ preferred_username: "left", roleInOrg: "no_access" },
		{ preferred_username: "quiet" },
	];
	assert.deepEqual(await answer({ ...INFO, orgs: organizations }), {
		subject: INFO.sub,
		name: "ann",
		organizations: ["acme", "quiet"],
	});
	assert.equal(await answer({ error: "no" }, 401), null);
	for (const name of ["", "a/b", "<script>", "../x", "a\u0000b", "x".repeat(200), "\u202Enna"]) {
		await assert.rejects(answer({ ...INFO, preferred_username: name }), /unexpected form/, JSON.stringify(name));
	}
	const odd = await answer({ ...INFO, orgs: [{ preferred_username: "acme" }, { preferred_username: "'; drop" }] });
	assert.deepEqual(odd?.organizations, [], "an odd list gives no rights at all");
	await assert.rejects(answer({ error: "later" }, 503), /503/);
});

test("private models are read page by page, of the Hub alone, and nothing but names of models counts", async () => {
	const first = `${HUB}/api/models?author=acme&limit=1000`;
	const second = `${HUB}/api/models?author=acme&limit=1000&cursor=2`;
	const page = (models: unknown, link?: string) => () =>
		Response.json(models, { headers: link === undefined ? {} : { Link: `<${link}>; rel="next"` } });
	const hub = hubOf({
		[first]: page(
			[{ id: "acme/a", private: true }, { id: "acme/open", private: false }, { id: "acme/unsaid" }],
			second,
		),
		[second]: page(
			[
				{ id: "acme/b", private: true },
				{ id: "<script>/x", private: true },
			],
			"http://evil.example/next",
		),
	});
	assert.deepEqual(await listPrivateModels(hub.access, "acme"), ["acme/a", "acme/b"]);
	assert.deepEqual(hub.asked, [`${first} Bearer hf_oauth_x`, `${second} Bearer hf_oauth_x`]);
});
