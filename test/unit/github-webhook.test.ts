import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";
import { readGitHubEvent } from "../../src/deliveries/github-event.ts";
import { runName } from "../../src/runners/run-name.ts";
import { GITHUB_SECRET, memoryData, startSite, type TestSite } from "../support/web-fixtures.ts";

const data = memoryData();
let site: TestSite;
before(async () => {
	site = await startSite(data);
});
after(() => site.close());

const ATTEMPT = { job: "0a1b2c3d-0000-4000-8000-00000000000a", fence: 3 };
const RUN = {
	action: "completed",
	repository: { full_name: "acme/quantize" },
	workflow_run: { id: 1, display_title: runName(ATTEMPT), status: "completed" },
};

function signature(body: string, secret = GITHUB_SECRET): string {
	return `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`;
}

let deliveries = 0;
function deliver(
	body: string | object,
	options: { signature?: string; event?: string; id?: string; url?: string; type?: string } = {},
): Promise<Response> {
	const text = typeof body === "string" ? body : JSON.stringify(body);
	return fetch(`${options.url ?? site.url}/webhooks/github`, {
		method: "POST",
		headers: {
			"Content-Type": options.type ?? "application/json",
			"X-Hub-Signature-256": options.signature ?? signature(text),
			"X-GitHub-Event": options.event ?? "workflow_run",
			"X-GitHub-Delivery": options.id ?? `72d3162e-cc78-11e3-81ab-${String(++deliveries).padStart(12, "0")}`,
		},
		body: text,
	});
}

test("a signed delivery is stored with its event's name before it is answered", async () => {
	const response = await deliver(RUN, { id: "first" });
	assert.equal(response.status, 202);
	const { delivery } = (await response.json()) as { delivery: string };
	const stored = data.stored.find((row) => row.id === delivery);
	assert.ok(stored !== undefined);
	assert.equal(stored.source, "github");
	assert.equal(stored.dedupeKey, "id:first");
	assert.deepEqual(stored.body, { event: "workflow_run", payload: RUN });
	assert.ok(!JSON.stringify(data.stored).includes(GITHUB_SECRET));
	const page = (await (await fetch(`${site.url}/deliveries`, { headers: { accept: "application/json" } })).json()) as {
		deliveries: { id: string; event: string; repo: string }[];
	};
	const shown = page.deliveries.find((row) => row.id === delivery);
	assert.deepEqual([shown?.event, shown?.repo], ["github workflow_run completed", "acme/quantize"]);
});

test("the same delivery id is stored once", async () => {
	await deliver(RUN, { id: "again" });
	const before = data.stored.length;
	const response = await deliver(RUN, { id: "again" });
	assert.equal(response.status, 200);
	assert.equal(((await response.json()) as { duplicate: boolean }).duplicate, true);
	assert.equal(data.stored.length, before);
});

test("the signature is of the bytes as they came, and the previous secret counts while it is rotated", async () => {
	const spaced = JSON.stringify(RUN, null, 2);
	assert.equal((await deliver(spaced, { signature: signature(JSON.stringify(RUN)) })).status, 401);
	assert.equal((await deliver(spaced)).status, 202);
	assert.equal((await deliver(spaced, { signature: signature(spaced, "the previous signing secret") })).status, 202);
});

for (const [name, given] of [
	["missing", ""],
	["of another secret", signature(JSON.stringify(RUN), "another secret than that")],
	["of an empty secret", signature(JSON.stringify(RUN), "")],
	["the older SHA-1", `sha1=${createHmac("sha1", GITHUB_SECRET).update(JSON.stringify(RUN)).digest("hex")}`],
	["the secret itself", GITHUB_SECRET],
] as const) {
	test(`a signature that is ${name} gets 401 and stores nothing`, async () => {
		const before = data.stored.length;
		assert.equal((await deliver(RUN, { signature: given })).status, 401);
		assert.equal(data.stored.length, before);
	});
}

test("without a secret everything is refused", async () => {
	const closed = await startSite(memoryData(), { gitHubWebhookSecrets: [] });
	try {
		const body = JSON.stringify(RUN);
		assert.equal((await deliver(body, { url: closed.url, signature: signature(body, "") })).status, 401);
		assert.equal((await deliver(body, { url: closed.url })).status, 401);
	} finally {
		await closed.close();
	}
});

test("a body over the cap gets 413, one that is no JSON object or names no event 400; a ping is answered", async () => {
	const before = data.stored.length;
	assert.equal((await deliver({ ...RUN, padding: "x".repeat(2 * 1024 * 1024) })).status, 413);
	for (const body of ["payload=%7B%7D", "[]", "null", "{"]) assert.equal((await deliver(body)).status, 400, body);
	assert.equal((await deliver(RUN, { event: "no event" })).status, 400);
	assert.equal((await deliver(RUN, { id: "no/id" })).status, 400);
	assert.equal((await deliver({ zen: "Design for failure." }, { event: "ping" })).status, 200);
	assert.equal(data.stored.length, before);
});

test("what a delivery is about is told from the run's title or the job's name, and from nothing else", () => {
	const repository = { full_name: "acme/quantize" };
	const run = { kind: "run", repository: "acme/quantize", attempt: ATTEMPT };
	assert.deepEqual(readGitHubEvent({ event: "workflow_run", payload: RUN }), run);
	const job = { action: "in_progress", repository, workflow_job: { name: runName(ATTEMPT) } };
	assert.deepEqual(readGitHubEvent({ event: "workflow_job", payload: job }), run);
	for (const body of [
		{ event: "workflow_run", payload: { ...RUN, workflow_run: { display_title: "CI" } } },
		{ event: "workflow_run", payload: { ...RUN, workflow_run: { display_title: `${runName(ATTEMPT)} ` } } },
		{ event: "workflow_run", payload: { repository } },
		{ event: "workflow_run", payload: { ...RUN, repository: undefined } },
		{ event: "push", payload: { repository } },
		{ event: 7, payload: {} },
		"text",
	]) {
		assert.equal(readGitHubEvent(body).kind, "ignored", JSON.stringify(body));
	}
});

test("a webhook that is set to send forms gets 415, with what to set instead", async () => {
	const response = await deliver("payload=%7B%7D", { type: "application/x-www-form-urlencoded" });
	assert.equal(response.status, 415);
	assert.match(((await response.json()) as { error: string }).error, /application\/json/);
});
