import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { RetryableError } from "../../../src/errors.ts";
import { isAllowedUrl } from "../../../src/hub/allowed-url.ts";
import {
	createHubFetch,
	type HubFetchOptions,
	REPEATABLE_HEADER,
	retryAfterSeconds,
} from "../../../src/hub/hub-fetch.ts";

const HUB = "https://hub.example";

type Call = { readonly url: string; readonly method: string; readonly headers: Headers };

/** A Hub that gives these answers in turn, the last one for ever. */
function hub(answers: readonly (() => Response | Promise<Response>)[], options: Partial<HubFetchOptions> = {}) {
	const calls: Call[] = [];
	const pauses: number[] = [];
	const send: typeof fetch = async (input, init) => {
		calls.push({ url: String(input), method: init?.method ?? "GET", headers: new Headers(init?.headers) });
		const answer = answers[Math.min(calls.length, answers.length) - 1];
		if (answer === undefined) throw new Error("no answer");
		return answer();
	};
	const hubFetch = createHubFetch({
		hubUrl: HUB,
		fetch: send,
		sleep: async (milliseconds) => void pauses.push(milliseconds),
		random: () => 0.5,
		...options,
	});
	return { hubFetch, calls, pauses };
}

const ok = () => new Response("{}");
const status =
	(code: number, headers: Record<string, string> = {}) =>
	() =>
		new Response("busy hf_abcdefghijkl", { status: code, headers });
const broken = (): never => {
	throw new TypeError("fetch failed");
};

describe("repeating", () => {
	for (const failure of [status(500), status(502), status(503), status(504), status(408), broken]) {
		test(`a read is repeated with growing pauses after ${failure === broken ? "a broken line" : failure().status}`, async () => {
			const { hubFetch, calls, pauses } = hub([failure, failure, ok]);
			assert.equal((await hubFetch(`${HUB}/api/models/a/b`)).status, 200);
			assert.equal(calls.length, 3);
			assert.equal(pauses.length, 2);
			assert.ok((pauses[1] ?? 0) > (pauses[0] ?? 0));
		});
	}
	test("a page where there should be data is a Hub that is not there, not a broken model", async () => {
		const page = () => new Response("<html>Back soon.</html>", { headers: { "content-type": "text/html" } });
		for (const path of ["/api/models/a/b", "/a/b/resolve/main/config.json"]) {
			const { hubFetch, calls } = hub([page, ok]);
			assert.equal(await (await hubFetch(`${HUB}${path}`)).text(), "{}");
			assert.equal(calls.length, 2);
			await assert.rejects(hub([page]).hubFetch(`${HUB}${path}`), RetryableError);
		}
		const own = hub([page]);
		assert.equal((await own.hubFetch(`${HUB}/a/b/resolve/main/docs/index.html`)).status, 200);
		assert.equal(own.calls.length, 1);
	});
	test("what is addressed by its content is, though it is posted", async () => {
		const xorb = hub([status(503), ok]);
		const address = `${HUB}/cas/v1/xorbs/default/${"0a".repeat(32)}`;
		assert.equal((await xorb.hubFetch(address, { method: "POST", body: new Uint8Array(3) })).status, 200);
		assert.equal(xorb.calls.length, 2);
	});
	test("a write is not, unless it was turned away by a rate limit", async () => {
		const unclear = hub([status(503), ok]);
		await assert.rejects(
			unclear.hubFetch(`${HUB}/api/models/a/b/commit/main`, { method: "POST", body: "x" }),
			RetryableError,
		);
		assert.equal(unclear.calls.length, 1);
		const limited = hub([status(429), ok]);
		await limited.hubFetch(`${HUB}/api/models/a/b/commit/main`, { method: "POST", body: "x" });
		assert.equal(limited.calls.length, 2);
	});
	test("a POST that is marked, or known to change nothing, is", async () => {
		const marked = hub([status(503), ok]);
		await marked.hubFetch(`${HUB}/api/x`, { method: "POST", body: "x", headers: { [REPEATABLE_HEADER]: "1" } });
		assert.equal(marked.calls.length, 2);
		assert.equal(marked.calls[0]?.headers.has(REPEATABLE_HEADER), false);
		const preupload = hub([status(503), ok]);
		await preupload.hubFetch(`${HUB}/api/models/a/b/preupload/main`, { method: "POST", body: "x" });
		assert.equal(preupload.calls.length, 2);
	});
	test("a refusal is not", async () => {
		for (const code of [400, 401, 403, 404, 409, 412, 422]) {
			const { hubFetch, calls } = hub([status(code)]);
			assert.equal((await hubFetch(`${HUB}/api/x`)).status, code);
			assert.equal(calls.length, 1);
		}
	});
	test("the pause is the server's own, and a long one is left to the queue", async () => {
		const short = hub([status(429, { ratelimit: '"api";r=0;t=7' }), ok]);
		await short.hubFetch(`${HUB}/api/x`);
		assert.deepEqual(short.pauses, [7250]);
		const long = hub([status(429, { "retry-after": "300" }), ok]);
		await assert.rejects(
			long.hubFetch(`${HUB}/api/x`),
			(error: Error) => error instanceof RetryableError && error.retryAfterSeconds === 300,
		);
	});
	test("what fails to the end is retryable and shows no token", async () => {
		const { hubFetch, calls } = hub([status(500)], { attempts: 3 });
		await assert.rejects(
			hubFetch(`${HUB}/api/x`),
			(error: Error) =>
				error instanceof RetryableError && !error.message.includes("hf_abc") && /500/.test(error.message),
		);
		assert.equal(calls.length, 3);
	});
	test("a call that was cancelled is not repeated", async () => {
		const controller = new AbortController();
		const { hubFetch, calls } = hub([
			() => {
				controller.abort(new Error("stop"));
				throw new Error("stop");
			},
		]);
		await assert.rejects(hubFetch(`${HUB}/api/x`, { signal: controller.signal }), /stop/);
		assert.equal(calls.length, 1);
	});
});

describe("limits", () => {
	test("an API answer over the cap breaks off, a file does not", async () => {
		const body = () => new Response("x".repeat(2000));
		const { hubFetch } = hub([body], { apiBodyBytes: 1000 });
		await assert.rejects((await hubFetch(`${HUB}/api/x`)).text(), /longer than 1000 bytes/);
		assert.equal((await (await hubFetch(`${HUB}/a/b/resolve/main/x`)).text()).length, 2000);
	});
	test("a server that does not answer is given up", async () => {
		const silent: typeof fetch = (_input, init) =>
			new Promise((_resolve, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
		const hubFetch = createHubFetch({ hubUrl: HUB, fetch: silent, attempts: 1, timeoutMilliseconds: 20 });
		await assert.rejects(hubFetch(`${HUB}/api/x`), /did not answer within 0.02 s/);
	});
	test("a body has time for its size: a large one for longer than an answer may take", async () => {
		const silent: typeof fetch = (_input, init) =>
			new Promise((_resolve, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
		const hubFetch = createHubFetch({
			hubUrl: HUB,
			fetch: silent,
			attempts: 1,
			timeoutMilliseconds: 20,
			uploadMilliseconds: 40,
			slowestUploadBytesPerSecond: 100_000,
		});
		for (const [body, seconds] of [
			[new Uint8Array(10_000), "0.12"],
			[new Blob(["x".repeat(5000)]), "0.07"],
			["x".repeat(1000), "0.03"],
			[new ReadableStream(), "0.06"],
		] as const) {
			await assert.rejects(hubFetch(`${HUB}/x`, { method: "POST", body }), {
				message: `The Hub did not answer within ${seconds} s.`,
			});
		}
	});
	test("an answer that breaks off half-way is worth another try, whoever reads it", async () => {
		const broken = () => {
			const body = new ReadableStream({
				start(controller) {
					controller.enqueue(new TextEncoder().encode("{"));
					controller.error(new TypeError("terminated"));
				},
			});
			return new Response(body, { headers: { "content-type": "application/json" } });
		};
		const { hubFetch } = hub([broken]);
		const response = await hubFetch(`${HUB}/api/models/a/b`);
		await assert.rejects(response.json(), (error) => {
			assert.ok(error instanceof RetryableError);
			assert.match(error.message, /broke off/);
			return true;
		});
	});

	test("a transfer that stands still is broken off", async () => {
		let signal: AbortSignal | null | undefined;
		const stuck: typeof fetch = async (_input, init) => {
			signal = init?.signal;
			return new Response(
				new ReadableStream({
					start(controller) {
						controller.enqueue(new Uint8Array(3));
						signal?.addEventListener("abort", () => controller.error(signal?.reason));
					},
				}),
			);
		};
		const hubFetch = createHubFetch({ hubUrl: HUB, fetch: stuck, idleMilliseconds: 20 });
		const keepAlive = setTimeout(() => {}, 5000);
		await assert.rejects((await hubFetch(`${HUB}/a/b/resolve/main/x`)).text(), /stood still/);
		clearTimeout(keepAlive);
	});
});

describe("addresses", () => {
	test("other hosts are refused, also by redirect, and the token stays at home", async () => {
		const { hubFetch, calls } = hub([
			() => new Response(null, { status: 302, headers: { location: "http://169.254.169.254/latest" } }),
		]);
		await assert.rejects(hubFetch(`${HUB}/a/b/resolve/main/x`), /does not send requests to http:\/\/169/);
		assert.equal(calls.length, 1);
		await assert.rejects(hubFetch("https://evil.example/"), /does not send requests/);
		const cdn = hub([
			() => new Response(null, { status: 302, headers: { location: "https://cdn.hub.example/x?sig=1" } }),
			ok,
		]);
		await cdn.hubFetch(`${HUB}/x`, { headers: { authorization: "Bearer hf_x" } });
		assert.equal(cdn.calls[0]?.headers.get("authorization"), "Bearer hf_x");
		assert.equal(cdn.calls[1]?.headers.get("authorization"), null);
	});
	test("endless redirects end", async () => {
		const { hubFetch, calls } = hub([() => new Response(null, { status: 302, headers: { location: "/again" } })]);
		await assert.rejects(hubFetch(`${HUB}/x`), /redirected too often/);
		assert.equal(calls.length, 6);
	});
	const allowed: readonly [hub: string, url: string, allowed: boolean][] = [
		["https://huggingface.co", "https://huggingface.co/api/x", true],
		["https://huggingface.co", "https://cas-bridge.xethub.hf.co/x", true],
		["https://huggingface.co", "https://hf-hub-lfs-us-east-1.s3-accelerate.amazonaws.com/x", true],
		["https://huggingface.co", "https://somebodys-bucket.s3-accelerate.amazonaws.com/x", false],
		["https://huggingface.co", "https://hf-hub-lfs-us-east-1-not.s3-accelerate.amazonaws.com/x", false],
		["https://huggingface.co", "https://s3.amazonaws.com/hf-hub-lfs-us-east-1/x", false],
		["https://huggingface.co", "https://d111111abcdef8.cloudfront.net/x", false],
		["https://huggingface.co", "http://huggingface.co/api/x", false],
		["https://huggingface.co", "https://huggingface.co.evil.example/", false],
		["https://huggingface.co", "https://evilhf.co/", false],
		["https://huggingface.co", "https://127.0.0.1/", false],
		["https://huggingface.co", "https://[::1]/", false],
		["https://huggingface.co", "https://user:password@huggingface.co/", false],
		["https://huggingface.co", "file:///etc/passwd", false],
		["http://127.0.0.1:5564", "http://127.0.0.1:5564/x", true],
		["http://127.0.0.1:5564", "http://localhost:5564/x", true],
		["http://127.0.0.1:5564", "http://127.0.0.1:5432/", false],
		["http://127.0.0.1:5564", "https://huggingface.co/", false],
		["https://hub.corp.example", "https://amazonaws.com/", false],
	];
	for (const [hubUrl, url, wanted] of allowed) {
		test(`${wanted ? "allows" : "refuses"} ${url} for ${hubUrl}`, () =>
			assert.equal(isAllowedUrl(new URL(url), hubUrl), wanted));
	}
});

test("a host that the operator named is allowed, by https, its port and full name alone", () => {
	const hosts = ["lfs.corp.example"];
	const isAllowed = (url: string) => isAllowedUrl(new URL(url), "https://hub.other.example", hosts);
	assert.deepEqual(
		[
			"https://lfs.corp.example/x",
			"http://lfs.corp.example/x",
			"https://lfs.corp.example:8443/x",
			"https://a.lfs.corp.example/x",
		].map(isAllowed),
		[true, false, false, false],
	);
});

test("the wanted pause is read from either header", () => {
	const now = new Date("2026-11-22T10:00:00Z");
	assert.equal(retryAfterSeconds(new Headers({ "retry-after": "12" }), now), 12);
	assert.equal(retryAfterSeconds(new Headers({ "retry-after": "Sun, 22 Nov 2026 10:00:30 GMT" }), now), 30);
	assert.equal(retryAfterSeconds(new Headers({ ratelimit: '"api";r=0;t=55' }), now), 55);
	assert.equal(retryAfterSeconds(new Headers({ "retry-after": "soon" }), now), null);
	assert.equal(retryAfterSeconds(new Headers(), now), null);
});
