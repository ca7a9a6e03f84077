import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { isProgressToken, progressToken } from "../../src/runners/progress-token.ts";
import type { NumberedEvent } from "../../src/runners/run-events.ts";
import { memoryData, NOW, startSite, type TestSite } from "../support/web-fixtures.ts";

const KEY = "a key that all replicas share";
const ATTEMPT = { job: "0a1b2c3d-0000-4000-8000-00000000000a", fence: 2 };
const LATER = new Date(NOW.getTime() + 60_000);
const token = progressToken(KEY, ATTEMPT, LATER);

let stored: NumberedEvent[] = [];
let isUnderWay = true;
let site: TestSite;
before(async () => {
	site = await startSite(memoryData(), {
		progress: {
			isAllowed: (attempt, given) => isProgressToken(KEY, attempt, given, NOW),
			store: async (_, events) => {
				if (isUnderWay) stored.push(...events);
				return isUnderWay;
			},
		},
	});
});
after(() => site.close());

function event(number: number, more: object = {}): string {
	const at = NOW.toISOString();
	return JSON.stringify({ event: "stage", stage: "load", status: "started", at, number, ...ATTEMPT, ...more });
}

function tell(body: string, options: { token?: string; fence?: number; job?: string } = {}): Promise<Response> {
	const { job = ATTEMPT.job, fence = ATTEMPT.fence } = options;
	return fetch(`${site.url}/api/runs/${job}/${fence}/events`, {
		method: "POST",
		headers: { Authorization: `Bearer ${options.token ?? token}`, "Content-Type": "application/x-ndjson" },
		body,
	});
}

test("a token is good for one attempt, until it expires, and cannot be changed", () => {
	assert.ok(isProgressToken(KEY, ATTEMPT, token, NOW));
	assert.ok(!isProgressToken(KEY, ATTEMPT, token, LATER));
	assert.ok(!isProgressToken(KEY, { ...ATTEMPT, fence: 3 }, token, NOW));
	assert.ok(!isProgressToken(KEY, { ...ATTEMPT, job: "0a1b2c3d-0000-4000-8000-00000000000b" }, token, NOW));
	assert.ok(!isProgressToken("another key", ATTEMPT, token, NOW));
	const [version, , signature] = token.split(".");
	assert.ok(!isProgressToken(KEY, ATTEMPT, `${version}.99999999999.${signature}`, NOW));
	for (const bad of ["", "p1", `${token}x`, token.slice(0, -1)]) assert.ok(!isProgressToken(KEY, ATTEMPT, bad, NOW));
});

test("events of the attempt are kept; results, other attempts' events and what is none are not", async () => {
	stored = [];
	const result = JSON.stringify({
		event: "result",
		ok: true,
		at: NOW.toISOString(),
		number: 4,
		...ATTEMPT,
		variants: [],
		sketch: { key: "k", directory: "sketch" },
		verification: "v",
	});
	const lines = [event(1), "a stray print", event(2, { fence: 1 }), event(3), result, event(200_000), ""];
	assert.equal((await tell(lines.join("\n"))).status, 204);
	assert.deepEqual(
		stored.map(({ number }) => number),
		[1, 3],
	);
});

test("without the token, with another attempt's, or when the attempt is over, nothing is taken", async () => {
	stored = [];
	assert.equal((await tell(event(1), { token: "p1.1.x" })).status, 401);
	assert.equal((await tell(event(1, { fence: 3 }), { fence: 3 })).status, 401);
	assert.equal((await tell(event(1), { job: "not-a-job" })).status, 401);
	assert.equal((await tell("x".repeat(2 * 1024 * 1024))).status, 413);
	isUnderWay = false;
	assert.equal((await tell(event(1))).status, 410);
	isUnderWay = true;
	assert.deepEqual(stored, []);
});
