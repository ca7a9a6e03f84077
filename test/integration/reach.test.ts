import assert from "node:assert/strict";
import { createServer } from "node:http";
import { type TestContext, test } from "node:test";
import { systemClock } from "../../src/clock.ts";
import { ConfigurationFile } from "../../src/config/schema.ts";
import { commentOnDiscussion } from "../../src/hub/comment-on-discussion.ts";
import { conditionalFetch } from "../../src/hub/conditional-fetch.ts";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { enableWebhook } from "../../src/hub/enable-webhook.ts";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { listHeads } from "../../src/hub/list-heads.ts";
import { listWebhooks } from "../../src/hub/list-webhooks.ts";
import { updateWebhook } from "../../src/hub/update-webhook.ts";
import { pollMentions } from "../../src/server/poll-mentions.ts";
import { registerWebhook } from "../../src/server/register-webhook.ts";
import { BOT, call, commit, createRepo, file, OWNER, receiver, testHub } from "../support/local-hub-fixture.ts";

test("the webhook is made once, left alone while it stands, and mended when it was changed or switched off", async (t: TestContext) => {
	const hub = await testHub(t);
	const end = await receiver(t);
	const access = { hubUrl: hub.url, accessToken: BOT };
	const publicUrl = new URL(end.url).origin;
	const { watch } = ConfigurationFile.parse({ watch: { namespaces: ["owner", "lab"], repos: ["stranger/model"] } });
	const register = async (renewSecret: boolean) =>
		(await registerWebhook({ hub: access, publicUrl, secret: "long enough", watch, renewSecret })).outcome;

	assert.equal(await register(true), "created");
	assert.equal(await register(false), "unchanged");
	const [webhook] = await listWebhooks(access);
	assert.ok(webhook !== undefined);
	assert.deepEqual(webhook.watched.map(({ type, name }) => `${type} ${name}`).toSorted(), [
		"model stranger/model",
		"org lab",
		"user owner",
	]);

	await enableWebhook({ ...access, id: webhook.id, enabled: false });
	assert.equal(await register(false), "enabled");
	assert.equal((await listWebhooks(access))[0]?.disabled, false);

	await updateWebhook({
		...access,
		id: webhook.id,
		settings: { url: `${publicUrl}/webhooks/hub`, watched: [{ type: "user", name: "owner" }], domains: ["repo"] },
	});
	assert.equal(await register(false), "updated");
	assert.equal((await listWebhooks(access))[0]?.watched.length, 3);
	assert.equal((await listWebhooks(access)).length, 1);
});

test("mentions are found by the bot's notifications, each once, and again when there is a new one", async (t: TestContext) => {
	const hub = await testHub(t);
	await createRepo(hub, "owner/model");
	const owner = { hubUrl: hub.url, accessToken: OWNER };
	const { num } = await createDiscussion({ ...owner, repo: "owner/model", title: "Please", description: "Hello." });
	const say = (comment: string) => commentOnDiscussion({ ...owner, repo: "owner/model", num, comment });
	await say("Nobody is named here.");
	const first = await say("@bot 8bit gguf");
	const stored = new Map<string, unknown>();
	const poll = () =>
		pollMentions({
			hub: { hubUrl: hub.url, accessToken: BOT },
			botName: "bot",
			clock: systemClock,
			storeDelivery: async ({ dedupeKey, body }) => {
				const duplicate = stored.has(dedupeKey);
				stored.set(dedupeKey, body);
				return { id: dedupeKey, duplicate };
			},
		});

	assert.deepEqual(await poll(), { discussions: 1, stored: 1 });
	assert.match([...stored.keys()][0] ?? "", new RegExp(first.id));
	assert.deepEqual(await poll(), { discussions: 0, stored: 0 });
	await say("@bot status");
	assert.deepEqual(await poll(), { discussions: 1, stored: 1 });
	assert.equal(stored.size, 2);
});

test("looking over an unchanged namespace costs no bodies, and a push is seen at once", async (t: TestContext) => {
	const hub = await testHub(t);
	for (const name of ["owner/one", "owner/two"]) {
		await createRepo(hub, name);
		await commit(hub, name, [file("README.md", "x")]);
	}
	const statuses: number[] = [];
	const counting: typeof fetch = async (input, init) => {
		const response = await fetch(input, init);
		statuses.push(response.status);
		return response;
	};
	const send = conditionalFetch(createHubFetch({ hubUrl: hub.url, fetch: counting }));
	const look = async () => {
		const heads: string[] = [];
		const access = { hubUrl: hub.url, accessToken: OWNER, fetch: send };
		for await (const { repo, sha } of listHeads({ ...access, of: { kind: "namespace", namespace: "owner" } })) {
			heads.push(`${repo} ${sha}`);
		}
		return heads.toSorted();
	};
	const first = await look();
	assert.equal(first.length, 2);
	statuses.length = 0;
	assert.deepEqual(await look(), first);
	assert.ok(statuses.length > 0 && statuses.every((status) => status === 304), statuses.join(" "));
	await commit(hub, "owner/one", [file("README.md", "y")]);
	assert.notDeepEqual(await look(), first);
});

test("a server that gives no tag is simply asked again", async (t: TestContext) => {
	let asked = 0;
	const server = createServer((_request, response) => response.end(String(++asked))).listen(0, "127.0.0.1");
	await new Promise((resolve) => server.once("listening", resolve));
	t.after(() => server.close());
	const address = server.address();
	assert.ok(typeof address === "object" && address !== null);
	const send = conditionalFetch(fetch);
	for (const wanted of ["1", "2"]) {
		assert.equal(await (await send(`http://127.0.0.1:${address.port}/`)).text(), wanted);
	}
	assert.equal((await call(`http://127.0.0.1:${address.port}/`)).text, "3");
});
