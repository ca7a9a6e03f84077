import assert from "node:assert/strict";
import { test } from "node:test";
import type { LocalHub } from "../../src/local-hub/start-local-hub.ts";
import {
	at,
	BOT,
	call,
	commit,
	createRepo,
	file,
	OWNER,
	receiver,
	STRANGER,
	temporaryFolder,
	testHub,
	textAt,
} from "../support/local-hub-fixture.ts";

const SECRET = "only the receiver knows";

async function watch(
	hub: LocalHub,
	url: string,
	watched: readonly { type: string; name: string }[],
	more: Record<string, unknown> = {},
	token = BOT,
): Promise<string> {
	const answer = await call(`${hub.url}/api/settings/webhooks`, {
		token,
		body: { url, watched, domains: ["repo", "discussion"], secret: SECRET, ...more },
	});
	assert.equal(answer.status, 200, answer.text);
	assert.equal(at(answer.json, "webhook.hasSecret"), true);
	assert.ok(!answer.text.includes(SECRET), "a secret never comes out again");
	return textAt(answer.json, "webhook.id");
}

async function activity(hub: LocalHub, id: string): Promise<unknown[]> {
	const answer = await call(`${hub.url}/api/settings/webhooks/${id}/activity`, { token: BOT });
	assert.ok(Array.isArray(answer.json));
	return answer.json;
}

const scopes = (received: readonly { body: unknown }[]): string[] =>
	received.map(({ body }) => `${String(at(body, "event.scope"))} ${String(at(body, "event.action"))}`);

test("events arrive in their order, with the secret, an id and the third payload version", async (context) => {
	const hub = await testHub(context);
	const hook = await receiver(context);
	const id = await watch(hub, hook.url, [{ type: "org", name: "lab" }]);
	await createRepo(hub, "lab/model");
	const pushed = await commit(hub, "lab/model", [file("README.md", "---\nlicense: mit\n---\n")]);
	const posted = await call(`${hub.url}/api/models/lab/model/discussions`, {
		token: STRANGER,
		body: { title: "A question", description: "Why?" },
	});
	assert.equal(posted.status, 200);
	await call(`${hub.url}/api/models/lab/model/discussions/1/comment`, { token: OWNER, body: { comment: "Because." } });
	await call(`${hub.url}/api/models/lab/model/discussions/1/status`, { token: OWNER, body: { status: "closed" } });
	await call(`${hub.url}/api/models/lab/model/settings`, { method: "PUT", token: OWNER, body: { private: true } });
	await call(`${hub.url}/api/repos/move`, { token: OWNER, body: { fromRepo: "lab/model", toRepo: "lab/moved" } });
	await call(`${hub.url}/api/repos/delete`, {
		method: "DELETE",
		token: OWNER,
		body: { name: "moved", organization: "lab" },
	});
	await hook.waitFor(8);
	await hub.webhooksIdle();
	assert.deepEqual(scopes(hook.received), [
		"repo create",
		"repo.content update",
		"discussion create",
		"discussion.comment create",
		"discussion update",
		"repo.config update",
		"repo move",
		"repo delete",
	]);
	assert.ok(hook.received.every((one) => one.headers["x-webhook-secret"] === SECRET));
	assert.equal(new Set(hook.received.map((one) => one.headers["webhook-id"])).size, 8);

	const content = hook.received[1]?.body;
	const sha = textAt(pushed.json, "commitOid");
	assert.equal(at(content, "repo.headSha"), sha);
	assert.equal(at(content, "repo.name"), "lab/model");
	assert.equal(at(content, "repo.type"), "model");
	assert.equal(at(content, "webhook.id"), id);
	assert.equal(at(content, "webhook.version"), 3);
	assert.equal(at(content, "updatedRefs.0.ref"), "refs/heads/main");
	assert.equal(at(content, "updatedRefs.0.newSha"), sha);
	const opened = hook.received[2]?.body;
	assert.equal(at(opened, "comment.content"), "Why?");
	const me = await call(`${hub.url}/api/whoami-v2`, { token: STRANGER });
	assert.equal(at(opened, "comment.author.id"), at(me.json, "id"));
	const apiUrl = textAt(opened, "discussion.url.api");
	assert.equal((await call(`${apiUrl}/comment`, { token: OWNER, body: { comment: "late" } })).status, 404);
	assert.equal(at(hook.received[5]?.body, "updatedConfig.private"), true);
	assert.equal(at(hook.received[6]?.body, "movedTo.name"), "lab/moved");
});

test("pull requests, branches and tags show in updatedRefs, a no-op commit shows nothing", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	await commit(hub, "lab/model", [file("a", "a")]);
	const hook = await receiver(context);
	await watch(hub, hook.url, [{ type: "model", name: "lab/model" }], { domains: ["repo"] });
	await commit(hub, "lab/model", [file("a", "a")]);
	await commit(hub, "lab/model", [file("b", "b")], { token: STRANGER, query: "?create_pr=1" });
	await call(`${hub.url}/api/models/lab/model/tag/main`, { token: OWNER, body: { tag: "v1" } });
	await call(`${hub.url}/api/models/lab/model/branch/dev`, { token: OWNER, body: {} });
	await call(`${hub.url}/api/models/lab/model/branch/dev`, { method: "DELETE", token: OWNER });
	await hook.waitFor(4);
	await hub.webhooksIdle();
	assert.deepEqual(
		hook.received.map(({ body }) => [
			at(body, "updatedRefs.0.ref"),
			at(body, "updatedRefs.0.oldSha") === null,
			at(body, "updatedRefs.0.newSha") === null,
		]),
		[
			["refs/pr/1", true, false],
			["refs/tags/v1", true, false],
			["refs/heads/dev", true, false],
			["refs/heads/dev", false, true],
		],
	);
});

test("a failed delivery is tried again under the same id, and a replay keeps it too", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const hook = await receiver(context, (count) => (count <= 2 ? 500 : 200));
	const id = await watch(hub, hook.url, [{ type: "model", name: "lab/model" }]);
	await commit(hub, "lab/model", [file("a", "a")]);
	await hook.waitFor(3);
	await hub.webhooksIdle();
	const log = await activity(hub, id);
	assert.equal(at(log, "0.state"), "delivered");
	assert.deepEqual(
		[0, 1, 2].map((attempt) => at(log, `0.attempts.${attempt}.status`)),
		[500, 500, 200],
	);
	const replayed = await call(`${hub.url}/api/settings/webhooks/${id}/replay/${textAt(log, "0.logId")}`, {
		method: "POST",
		token: BOT,
	});
	assert.deepEqual(replayed.json, { status: 200 });
	assert.equal(hook.received.length, 4);
	assert.equal(new Set(hook.received.map((one) => one.headers["webhook-id"])).size, 1);
	const unknown = await call(`${hub.url}/api/settings/webhooks/${id}/replay/${"0".repeat(24)}`, {
		method: "POST",
		token: BOT,
	});
	assert.equal(unknown.status, 404);
});

test("a webhook that keeps failing is suspended until it is enabled again", async (context) => {
	const hub = await testHub(context, { webhookSuspendAfterFailures: 4, webhookRetryMilliseconds: [5] });
	await createRepo(hub, "lab/model");
	let status = 404;
	const hook = await receiver(context, () => status);
	const id = await watch(hub, hook.url, [{ type: "model", name: "lab/model" }]);
	for (const name of ["a", "b", "c"]) {
		await commit(hub, "lab/model", [file(name, name)]);
		await hub.webhooksIdle();
	}
	assert.equal(hook.received.length, 4, "two commits with one retry each, then silence");
	const view = await call(`${hub.url}/api/settings/webhooks/${id}`, { token: BOT });
	assert.equal(at(view.json, "webhook.disabled"), "suspended-after-failure");
	status = 204;
	await call(`${hub.url}/api/settings/webhooks/${id}/enable`, { method: "POST", token: BOT });
	await commit(hub, "lab/model", [file("d", "d")]);
	await hub.webhooksIdle();
	assert.equal(hook.received.length, 5);
});

test("a slow receiver holds up no request, and a failing one no other event", async (context) => {
	const hub = await testHub(context, { webhookTimeoutMilliseconds: 50, webhookRetryMilliseconds: [100] });
	await createRepo(hub, "lab/model");
	await watch(hub, "http://10.255.255.1:9/never", [{ type: "model", name: "lab/model" }]);
	const hook = await receiver(context, (count) => (count === 1 ? 500 : 200));
	await watch(hub, hook.url, [{ type: "model", name: "lab/model" }]);
	const started = performance.now();
	await commit(hub, "lab/model", [file("a", "a")], { summary: "first" });
	await commit(hub, "lab/model", [file("b", "b")], { summary: "second" });
	assert.ok(performance.now() - started < 2000);
	await hook.waitFor(3);
	const ids = hook.received.map((one) => one.headers["webhook-id"]);
	assert.equal(ids[2], ids[0], "the first comes again after the second went through");
	assert.notEqual(ids[1], ids[0]);
	await hub.webhooksIdle();
});

test("nobody is told of a private repo that they cannot see", async (context) => {
	const hub = await testHub(context);
	const hook = await receiver(context);
	await watch(hub, hook.url, [{ type: "org", name: "lab" }], {}, STRANGER);
	await createRepo(hub, "lab/secret", OWNER, { private: true });
	await createRepo(hub, "lab/open");
	await hook.waitFor(1);
	await hub.webhooksIdle();
	assert.deepEqual(
		hook.received.map(({ body }) => at(body, "repo.name")),
		["lab/open"],
	);
});

test("deliveries can be dropped and doubled by fault switches", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const hook = await receiver(context);
	await watch(hub, hook.url, [{ type: "model", name: "lab/model" }]);
	const armed = await call(`${hub.url}/__local-hub/faults`, {
		token: hub.adminToken,
		body: { dropWebhooks: 1, duplicateWebhooks: 1 },
	});
	assert.equal(armed.status, 200);
	for (const name of ["dropped", "doubled", "plain"]) await commit(hub, "lab/model", [file(name, name)]);
	await hub.webhooksIdle();
	assert.equal(hook.received.length, 3);
	const ids = hook.received.map((one) => one.headers["webhook-id"]);
	assert.equal(ids[0], ids[1]);
	assert.equal((await call(`${hub.url}/__local-hub/faults`, { token: OWNER, body: {} })).status, 401);
});

test("what was not yet delivered when the Hub stopped is delivered when it runs again", async (context) => {
	const dataDirectory = await temporaryFolder(context);
	const first = await testHub(context, { dataDirectory, webhookRetryMilliseconds: [3_600_000] });
	let status = 503;
	const hook = await receiver(context, () => status);
	await createRepo(first, "lab/model");
	const id = await watch(first, hook.url, [{ type: "model", name: "lab/model" }]);
	await commit(first, "lab/model", [file("a", "a")]);
	await hook.waitFor(1);
	await new Promise((resolve) => setTimeout(resolve, 50));
	await first.close();
	status = 200;
	const second = await testHub(context, { dataDirectory });
	await hook.waitFor(2);
	await second.webhooksIdle();
	assert.equal(hook.received[1]?.headers["webhook-id"], hook.received[0]?.headers["webhook-id"]);
	assert.equal(at(await activity(second, id), "0.state"), "delivered");
});
