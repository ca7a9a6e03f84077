import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { constantTimeEqual } from "../../src/web/constant-time-equal.ts";
import { memoryData, SECRET, startSite, type TestSite } from "../support/web-fixtures.ts";

const data = memoryData();
let site: TestSite;
before(async () => {
	site = await startSite(data);
});
after(() => site.close());

const BODY = {
	event: { action: "update", scope: "repo.content" },
	repo: { type: "model", name: "demo/small-llama", somethingNew: true },
	updatedRefs: [{ ref: "refs/heads/main", oldSha: null, newSha: "a".repeat(40) }],
};

function deliver(body: string | object, headers: Record<string, string> = {}): Promise<Response> {
	return fetch(`${site.url}/webhooks/hub`, {
		method: "POST",
		headers: { "Content-Type": "application/json", "X-Webhook-Secret": SECRET, ...headers },
		body: typeof body === "string" ? body : JSON.stringify(body),
	});
}

test("a delivery is stored before it is answered, without the secret", async () => {
	const response = await deliver({ ...BODY, nonce: 1 });

	assert.equal(response.status, 202);
	const answer = (await response.json()) as { delivery: string; duplicate: boolean };
	const stored = data.stored.find((row) => row.id === answer.delivery);
	assert.ok(stored !== undefined);
	assert.equal(answer.duplicate, false);
	assert.match(stored.dedupeKey, /^sha256:/);
	assert.ok(!JSON.stringify(data.stored).includes(SECRET));
	assert.deepEqual((stored.body as typeof BODY).repo, BODY.repo);
});

test("the previous secret is accepted while it is rotated", async () => {
	const response = await deliver({ ...BODY, nonce: 2 }, { "X-Webhook-Secret": "the previous secret" });
	assert.equal(response.status, 202);
});

for (const [name, headers] of [
	["missing", { "X-Webhook-Secret": "" }],
	["wrong", { "X-Webhook-Secret": "a long enough secreT" }],
	["a prefix of it", { "X-Webhook-Secret": SECRET.slice(0, -1) }],
] as const) {
	test(`a secret that is ${name} gets 401 and stores nothing`, async () => {
		const before = data.stored.length;
		const response = await deliver({ ...BODY, nonce: name }, headers);
		assert.equal(response.status, 401);
		assert.equal(data.stored.length, before);
	});
}

test("the secret in the address does not count", async () => {
	const response = await fetch(`${site.url}/webhooks/hub?secret=${encodeURIComponent(SECRET)}`, {
		method: "POST",
		body: JSON.stringify(BODY),
	});
	assert.equal(response.status, 401);
});

test("without any configured secret everything is refused", async () => {
	const closed = await startSite(memoryData(), { webhookSecrets: [] });
	try {
		for (const secret of ["", "x"]) {
			const response = await fetch(`${closed.url}/webhooks/hub`, {
				method: "POST",
				headers: { "X-Webhook-Secret": secret },
				body: JSON.stringify(BODY),
			});
			assert.equal(response.status, 401);
		}
	} finally {
		await closed.close();
	}
});

test("the same delivery id is stored once, whatever its body", async () => {
	const first = await deliver({ ...BODY, nonce: 3 }, { "Webhook-Id": "delivery-1" });
	const before = data.stored.length;
	const again = await deliver({ ...BODY, nonce: 4 }, { "Webhook-Id": "delivery-1" });

	assert.equal(first.status, 202);
	assert.equal(again.status, 200);
	assert.equal(((await again.json()) as { duplicate: boolean }).duplicate, true);
	assert.equal(data.stored.length, before);
});

test("without a delivery id the same body is stored once", async () => {
	await deliver({ ...BODY, nonce: 5 });
	const before = data.stored.length;
	const again = await deliver({ ...BODY, nonce: 5 });
	assert.equal(again.status, 200);
	assert.equal(data.stored.length, before);
});

test("a body that says it is over the cap gets 413 before it is sent", async () => {
	const { port } = new URL(site.url);
	const socket = connect(Number(port), "127.0.0.1");
	await once(socket, "connect");
	socket.write(
		`POST /webhooks/hub HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: ${SECRET}\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n`,
	);
	const [answer] = (await once(socket, "data")) as [Buffer];
	assert.match(answer.toString("utf8"), /^HTTP\/1\.1 413 /);
	socket.destroy();
});

test("a chunked body is cut off at the cap", async () => {
	const before = data.stored.length;
	const { port } = new URL(site.url);
	const sent = request({
		host: "127.0.0.1",
		port,
		path: "/webhooks/hub",
		method: "POST",
		headers: { "X-Webhook-Secret": SECRET, "Content-Type": "application/json", "Transfer-Encoding": "chunked" },
	});
	sent.on("error", () => undefined);
	sent.write("x".repeat(3000));
	sent.write("x".repeat(3000));
	const [response] = (await once(sent, "response")) as [{ statusCode: number }];
	assert.equal(response.statusCode, 413);
	assert.equal(data.stored.length, before);
	sent.destroy();
});

for (const [name, body] of [
	["not JSON", "{"],
	["not an object", "[]"],
	["without an event", { repo: { type: "model", name: "a/b" } }],
	["with a number for a repo", { event: { action: "x", scope: "y" }, repo: 5 }],
] as const) {
	test(`a body ${name} gets 400 and stores nothing`, async () => {
		const before = data.stored.length;
		assert.equal((await deliver(body)).status, 400);
		assert.equal(data.stored.length, before);
	});
}

for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]) {
	test(`a body of type ${type} gets 415 and stores nothing, and without the secret 401`, async () => {
		const before = data.stored.length;
		assert.equal((await deliver(BODY, { "Content-Type": type })).status, 415);
		assert.equal((await deliver(BODY, { "Content-Type": type, "X-Webhook-Secret": "wrong" })).status, 401);
		assert.equal(data.stored.length, before);
	});
}

test("JSON with a charset is JSON", async () => {
	const type = { "Content-Type": "application/json; charset=utf-8" };
	assert.equal((await deliver({ ...BODY, nonce: "charset" }, type)).status, 202);
});

test("a database that fails gives 503, so that the Hub delivers again", async () => {
	const broken = memoryData();
	const failing = await startSite({ ...broken, storeDelivery: () => Promise.reject(new Error("down")) });
	try {
		const response = await fetch(`${failing.url}/webhooks/hub`, {
			method: "POST",
			headers: { "X-Webhook-Secret": SECRET, "Content-Type": "application/json" },
			body: JSON.stringify(BODY),
		});
		assert.equal(response.status, 503);
	} finally {
		await failing.close();
	}
});

test("outcomes are counted in the metrics", async () => {
	const text = await (await fetch(`${site.url}/metrics`)).text();
	assert.match(text, /yaqa_bot_webhook_requests_total\{outcome="unauthorized"\} [1-9]/);
	assert.match(text, /yaqa_bot_webhook_requests_total\{outcome="duplicate"\} 2/);
	assert.match(text, /yaqa_bot_jobs\{state="running"\} 2/);
	assert.match(text, /yaqa_bot_queue_age_seconds 1\.5/);
});

test("secrets are compared whole, whatever their lengths", () => {
	assert.equal(constantTimeEqual("abc", "abc"), true);
	assert.equal(constantTimeEqual("abc", "abd"), false);
	assert.equal(constantTimeEqual("abc", "abcd"), false);
	assert.equal(constantTimeEqual("", "a"), false);
	assert.equal(constantTimeEqual("ü", "u\u0308"), false);
});
