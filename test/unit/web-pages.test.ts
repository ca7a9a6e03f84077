import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ConfigurationFile } from "../../src/config/schema.ts";
import { escapeHtml } from "../../src/publish/escape.ts";
import { html } from "../../src/web/html.ts";
import { aboutOf } from "../../src/web/views/about-page.ts";
import {
	EIGHT_BILLION,
	makeEvents,
	makeJob,
	makeVariant,
	memoryData,
	NOW,
	startSite,
	type TestSite,
	uuid,
} from "../support/web-fixtures.ts";

const HOSTILE = `<script>alert(1)</script>"'\`&\u202Egpj.exe`;

const running = makeJob();
const failed = makeJob({
	state: "failed",
	sourceRepo: "somebody/broken",
	statusText: HOSTILE,
	refusal: { code: "pickle-only", message: `Only pickle ${HOSTILE}`, remedy: `Save it again ${HOSTILE}` },
});
const remarked = makeJob({ remark: `bot/model was no longer there, hence a run. ${HOSTILE}` });
const held = makeJob({ state: "waiting", startedAt: null, heldUntil: new Date(NOW.getTime() + 1000) });
const queued = makeJob({ state: "waiting", startedAt: null, sourceRepo: "demo/queued" });
const next = makeJob({ state: "waiting", startedAt: null });
const cancelled = makeJob({
	state: "cancelled",
	finishedAt: NOW,
	statusText: "The job was cancelled.",
	refusal: { code: "cancelled", message: "The job was cancelled.", remedy: "Retry it when it is wanted again." },
});
const data = memoryData({
	variants: [
		makeVariant({ recipe: "gguf:q4_0" }),
		makeVariant({ recipe: "gguf:q8_0", kl: 0.0002, bytes: 11e6 }),
		makeVariant({ recipe: "w4a16", sourceSha: "0".repeat(40) }),
		makeVariant({ recipe: HOSTILE, sourceRepo: "demo/small-llama", targetRepo: `a/${HOSTILE}` }),
		makeVariant({ recipe: "onnx:q4", state: "wanted", jobId: running.id }),
		makeVariant({ state: "failed", jobId: cancelled.id, refusal: cancelled.refusal }),
	],
	jobs: [running, failed, remarked, held, queued, next, cancelled],
	events: [...makeEvents(running.id), ...makeEvents(cancelled.id)],
	places: {
		[queued.id]: { ahead: 2, front: { id: next.id, sourceRepo: HOSTILE, isRunning: false } },
		[next.id]: { ahead: 0, front: { id: running.id, sourceRepo: running.sourceRepo, isRunning: true } },
	},
	deliveries: [
		{
			id: uuid(),
			source: "hub",
			dedupeKey: "k",
			receivedAt: NOW,
			outcome: "ignored",
			detail: HOSTILE,
			body: {
				event: { action: "create", scope: "discussion.comment" },
				repo: { name: HOSTILE },
				comment: { content: "private words" },
			},
		},
	],
});
let site: TestSite;
let empty: TestSite;
before(async () => {
	site = await startSite(data, { checks: [{ name: "database", cacheSeconds: 0, check: () => Promise.resolve() }] });
	empty = await startSite(memoryData(), {
		checks: [{ name: "hub", cacheSeconds: 60, check: () => Promise.reject(new Error("no route")) }],
	});
});
after(async () => {
	await site.close();
	await empty.close();
});

const PAGES = [
	"/",
	"/?q=llama&container=gguf&bits=4&sort=kl&family=Other&since=week&size=4GB&parameters=10b",
	"/variants?q=llama&container=gguf&bits=4&sort=kl",
	"/m/demo/small-llama",
	"/jobs",
	`/jobs/${running.id}`,
	`/jobs/${failed.id}`,
	`/jobs/${remarked.id}`,
	`/jobs/${queued.id}`,
	`/jobs/${cancelled.id}`,
	"/deliveries",
	"/help",
	"/about",
	"/no-such-page",
	"/m/nobody/nothing",
] as const;

async function page(address: string, base = site.url): Promise<{ response: Response; text: string }> {
	const response = await fetch(`${base}${address}`, { headers: { Accept: "text/html" } });
	return { response, text: await response.text() };
}

for (const address of PAGES) {
	test(`${address} is well-formed, labelled and reachable without script`, async () => {
		const { text } = await page(address);

		assert.match(text, /^<!doctype html>\n<html lang="en">/);
		assert.equal(text.match(/<h1[ >]/g)?.length, 1);
		assert.equal(text.match(/<main /g)?.length, 1);
		assert.match(text, /<a class="skip" href="#main">/);
		assert.match(text, /<nav aria-label="Main">/);
		assert.match(text, /<title>[^<]+<\/title>/);
		assert.match(text, /name="viewport"/);
		for (const table of text.match(/<table[\s\S]*?<\/table>/g) ?? []) {
			assert.match(table, /<caption>[^<]+<\/caption>/);
			for (const head of table.match(/<th(?=[ >])[^>]*>/g) ?? []) assert.match(head, /scope="(col|row)"/);
		}
		for (const bar of text.match(/<progress[^>]*>/g) ?? []) assert.match(bar, /aria-label="[^"]+"/);
		for (const svg of text.match(/<svg[^>]*>/g) ?? [])
			assert.match(svg, /aria-hidden="true"|role="img" aria-labelledby/);
		for (const field of text.match(/<(input|select)[^>]*>/g) ?? []) assert.match(field, /name="/);
		for (const time of text.match(/<time[^>]*>/g) ?? []) assert.match(time, /datetime="\d{4}-/);
		const ids = [...text.matchAll(/ id="([^"]+)"/g)].map((match) => match[1]);
		assert.equal(new Set(ids).size, ids.length, "ids are unique");
		// Every element that opens closes, in order.
		const open: string[] = [];
		for (const [, closing, name = "", rest = ""] of text
			.replace(/^<!doctype html>/, "")
			.matchAll(/<(\/?)([a-z][a-z0-9]*)((?:"[^"]*"|[^">])*)>/g)) {
			if (["meta", "link", "input", "br"].includes(name) || rest.endsWith("/")) continue;
			if (closing === "") open.push(name);
			else assert.equal(open.pop(), name);
		}
		assert.deepEqual(open, []);
	});

	test(`${address} shows hostile text as text and loads nothing from elsewhere`, async () => {
		const { text, response } = await page(address);

		assert.ok(!text.includes("<script>alert"));
		assert.ok(!text.includes("\u202E"));
		assert.ok(!/\son[a-z]+="/.test(text), "no inline handlers");
		assert.ok(!/\sstyle="|<style/.test(text), "no inline styles: the policy forbids them");
		for (const [, address = ""] of text.matchAll(/<(?:script|link|img|iframe)[^>]* (?:src|href)="([^"]*)"/g)) {
			assert.match(address, /^\/assets\//);
		}
		assert.match(response.headers.get("content-security-policy") ?? "", /default-src 'self'.*frame-ancestors 'none'/);
		assert.equal(response.headers.get("x-content-type-options"), "nosniff");
		assert.ok(response.headers.has("referrer-policy"));
		assert.equal(response.headers.get("x-powered-by"), null);
	});
}

test("every page but the errors has a JSON twin at its address", async () => {
	for (const [address, key] of [
		["/", "models"],
		["/variants", "variants"],
		["/m/demo/small-llama", "variants"],
		["/jobs", "jobs"],
		[`/jobs/${running.id}`, "job"],
		["/deliveries", "deliveries"],
		["/help", "commands"],
	] as const) {
		const response = await fetch(`${site.url}${address}`, { headers: { Accept: "application/json" } });
		assert.match(response.headers.get("content-type") ?? "", /^application\/json/);
		assert.match(response.headers.get("vary") ?? "", /Accept/);
		const twin = (await response.json()) as Record<string, unknown>;
		assert.ok(twin[key] !== undefined, address);
		assert.ok(!JSON.stringify(twin).includes("secret-handle"), "where a run lives stays inside");
		assert.ok(!JSON.stringify(twin).includes("private words"), "what people wrote stays inside");
	}
});

test("a job's page says why it has a run after all", async () => {
	assert.match((await page(`/jobs/${remarked.id}`)).text, /<p>bot\/model was no longer there, hence a run\./);
	const { text } = await page(`/jobs/${running.id}`);
	assert.doesNotMatch(text, /no longer there/);
});

test("the list of variants shows KL with its error, GPTQ beside it, and links to the Hub", async () => {
	const { text } = await page("/variants");
	assert.match(text, /0\.02100 ± 0\.00084/);
	assert.match(text, /−49 %/);
	assert.match(text, /href="http:\/\/hub\.example\/yaqa-bot\/small-llama-YAQA-GGUF"/);
});

test("a model's page has a plot with the same figures as its table, and marks variants of older commits", async () => {
	const { text } = await page("/m/demo/small-llama");
	assert.match(text, /<svg class="plot"[^>]*role="img"/);
	assert.match(text, /recipes: \[gguf:q4_0, gguf:q8_0, w4a16/);
	assert.match(text, /of an older commit/);
});

const eight = memoryData({
	variants: (
		[
			["gguf:q4_0", 4.7e9, 0.034],
			["gguf:q8_0", 8.5e9, 0.0004],
			["w4a16", 5.7e9, 0.021],
		] as const
	).map(([recipe, bytes, kl]) => makeVariant({ recipe, bytes, kl, sourceRepo: "demo/eight", shape: EIGHT_BILLION })),
});

test("from a memory and a context a model's page gives one file, why, and the command that runs it", async () => {
	const other = await startSite(eight);
	try {
		const { text } = await page("/m/demo/eight?fits=8+GB&context=8k&container=gguf", other.url);
		assert.match(text, /For 8 GB, context 8k: <span class="tag">gguf:q4_0<\/span>/);
		assert.match(text, /It is the only file that fits; there is room for a context of [\d.]+k? tokens/);
		assert.match(
			text,
			/llama-cli -hf yaqa-bot\/small-llama-YAQA-GGUF:Q4_0|llama-cli -hf yaqa-bot\/eight-YAQA-GGUF:Q4_0/,
		);
		assert.match(text, /<input name="fits" value="8 GB"/);
		const twin = await fetch(`${other.url}/m/demo/eight?fits=RTX+4090&context=8k`, {
			headers: { Accept: "application/json" },
		});
		const { fit } = (await twin.json()) as { fit: { recommended: string; rows: { fits: boolean; memory: object }[] } };
		assert.equal(fit.recommended, "gguf:q8_0");
		assert.deepEqual(
			fit.rows.map((row) => row.fits),
			[true, true, true],
		);
		const none = await page("/m/demo/eight?fits=2+GB", other.url);
		assert.match(none.text, /Nothing fits 2 GB, context 8k/);
		const hostile = await page(
			`/m/demo/eight?fits=${encodeURIComponent(HOSTILE)}&context=%00&cache=9&container=x`,
			other.url,
		);
		assert.equal(hostile.response.status, 200);
		assert.match(hostile.text, /I do not know/);
		assert.doesNotMatch(hostile.text, /<script>alert/);
	} finally {
		await other.close();
	}
});

test("a job in line is queued, with the job in front linked; one that is held is not", async () => {
	const { text } = await page(`/jobs/${queued.id}`);
	assert.match(text, /<title>Queued: demo\/queued · yaqa-bot<\/title>/);
	assert.match(text, /class="state wait">.*<\/svg>Queued</);
	assert.match(text, new RegExp(`2 jobs are ahead; in front of it: <a href="/jobs/${next.id}">&lt;script&gt;`));
	assert.match(
		(await page(`/jobs/${next.id}`)).text,
		new RegExp(`next, after <a href="/jobs/${running.id}">demo/small-llama</a>, which runs`),
	);
	const other = (await page(`/jobs/${held.id}`)).text;
	assert.match(other, /<title>Waiting: /);
	assert.doesNotMatch(other, /In line/);
});

test("a cancelled job is cancelled: what it reached, what of it was to be, and no fault", async () => {
	const { text } = await page(`/jobs/${cancelled.id}`);
	assert.match(text, /<title>Cancelled: /);
	assert.match(text, /<section class="panel"><h2>Cancelled<\/h2>/);
	assert.match(text, /stopped at 14 of 57 layers</);
	assert.match(text, /not reached</);
	assert.doesNotMatch(text, /class="state bad"|left</);
	const ending = await startSite(memoryData({ jobs: [{ ...running, cancelRequested: true }] }));
	try {
		assert.match((await page(`/jobs/${running.id}`, ending.url)).text, /<title>Being ended: /);
	} finally {
		await ending.close();
	}
});

test("the time left is the plan's rest, no less than the stage says, and says when the plan is overrun", async () => {
	// The run told of itself 194 s before, and its stage says 42 s.
	for (const [plannedSeconds, text] of [
		[194 + 600, "about 10 min of 13 min planned"],
		[194 + 50, "less than a minute of 4 min planned"],
		[194 + 41, "at least 42 s; longer than the 3 min planned"],
		[null, "at least 42 s"],
	] as const) {
		const job = { ...running, plannedSeconds };
		const planned = await startSite(memoryData({ jobs: [job], events: makeEvents(job.id) }));
		try {
			assert.match((await page(`/jobs/${job.id}`, planned.url)).text, new RegExp(`Time left</dt><dd>${text}</dd>`));
		} finally {
			await planned.close();
		}
	}
});

test("a failed job says why and what to do", async () => {
	const { text } = await page(`/jobs/${failed.id}`);
	assert.match(text, /Only pickle &lt;script&gt;/);
	assert.match(text, /What to do:/);
	assert.ok(!text.includes("data-live"), "a finished job is not followed");
});

test("a running job is followed, and reloads by itself where there is no script", async () => {
	const { text } = await page(`/jobs/${running.id}`);
	assert.match(text, new RegExp(`data-live="/jobs/${running.id}/events\\?view=parts"`));
	assert.match(text, /<noscript><meta http-equiv="refresh"/);
	assert.match(text, /14 of 57 layers, 42 s left/);
	assert.match(text, /role="status"/);
});

test("the about page says who runs the bot and how it measures, from the configuration", async () => {
	const plain = (await page("/about")).text;
	assert.match(plain, /<dt>Operator<\/dt><dd>not named</);
	assert.match(plain, /Open a discussion in any repo of <a href="http:\/\/hub\.example\/yaqa-bot">/);
	assert.match(plain, /32 sequences of each text, of 256 tokens/);
	assert.match(plain, /as far as the machine allows/);
	const settings = {
		about: { operator: HOSTILE, contact: "ann@example.org", source: "https://example.org/source" },
		quantization: { evaluation: { sequences: 1234 } },
		verification: { unmeasured: "allow", floor: [] },
		runner: { kind: "hf-jobs" },
	} as const;
	const told = await startSite(memoryData(), { about: aboutOf(ConfigurationFile.parse(settings), true) });
	try {
		const { text } = await page("/about", told.url);
		assert.match(text, /<dd>&lt;script&gt;alert/);
		assert.match(text, /<a href="mailto:ann@example\.org">/);
		assert.match(text, /<a href="https:\/\/example\.org\/source">source<\/a>/);
		assert.match(text, /1,234 sequences/);
		for (const words of ["No file is held back", "with a card that says so", "Hugging Face Jobs", "Manifests carry"]) {
			assert.ok(text.includes(words), words);
		}
	} finally {
		await told.close();
	}
	assert.equal(ConfigurationFile.safeParse({ about: { contact: "javascript:alert(1)" } }).success, false);
});

test("the empty catalogue says what to do", async () => {
	const { text } = await page("/", empty.url);
	assert.match(text, /Nothing is published yet/);
	assert.match(text, /@yaqa-bot quantize 4bit gguf/);
});

test("who has a page already is told that it has not changed, and gets it anew once it has", async () => {
	let now = NOW;
	const jobs = [running, failed, queued, cancelled];
	const places = { [queued.id]: { ahead: 2, front: null } };
	const content = memoryData({ variants: [makeVariant()], jobs, events: makeEvents(running.id), places });
	const changing = await startSite(content, { clock: { now: () => now } });
	const none = await startSite(memoryData(), { clock: { now: () => now } });
	// `fetch` asks caches for a new copy as soon as it is given an If-None-Match, unless told otherwise.
	const ask = (address: string, etag: string, accept: string) =>
		fetch(address, { headers: { "If-None-Match": etag, "Cache-Control": "max-age=0", Accept: accept } });
	try {
		const addresses = [
			...PAGES.filter((address) => !/no-such|nobody|jobs\/./.test(address)),
			...jobs.map((job) => `/jobs/${job.id}`),
			"/feed.atom",
			"/sitemap.xml",
			"/robots.txt",
			"/openapi.json",
		].map((address) => `${changing.url}${address}`);
		addresses.push(`${none.url}/`, `${none.url}/jobs`, `${none.url}/feed.atom`, `${none.url}/deliveries`);
		for (const address of addresses) {
			for (const accept of ["text/html", "application/json"]) {
				now = NOW;
				const first = await fetch(address, { headers: { Accept: accept } });
				const etag = first.headers.get("etag") ?? "";
				assert.equal(first.status, 200, address);
				assert.match(etag, /^W\//, address);
				now = new Date(NOW.getTime() + 7_000);
				const again = await ask(address, etag, accept);
				assert.equal(again.status, 304, `${address} as ${accept}`);
				assert.equal(await again.text(), "");
			}
		}
		const address = `${changing.url}/jobs`;
		const page = (await fetch(address, { headers: { Accept: "text/html" } })).headers.get("etag") ?? "";
		assert.equal((await ask(address, page, "application/json")).status, 200, "the other form is another answer");
		now = new Date(NOW.getTime() + 3_600_000);
		assert.equal((await ask(address, page, "text/html")).status, 200, "an hour later it says so");
	} finally {
		await changing.close();
		await none.close();
	}
});

test("parameters that make no sense count as not given", async () => {
	for (const list of ["/", "/variants"]) {
		const { response } = await page(`${list}?bits=abc&container=exe&sort=;drop&cursor=%00&q=&q=x&size=9&since=never`);
		assert.equal(response.status, 200);
	}
});

test("programs find what they may read, which pages there are, and what is new; hostile names are text there too", async () => {
	const robots = await page("/robots.txt");
	assert.match(robots.text, /^User-agent: \*\nDisallow: \/deliveries/);
	assert.match(robots.text, /Sitemap: http:\/\/127\.0\.0\.1:\d+\/sitemap\.xml/);
	const sitemap = await page("/sitemap.xml");
	assert.match(sitemap.response.headers.get("content-type") ?? "", /xml/);
	assert.match(sitemap.text, /<loc>http:\/\/127\.0\.0\.1:\d+\/m\/demo\/small-llama<\/loc>/);
	const feed = await page("/feed.atom");
	assert.match(feed.response.headers.get("content-type") ?? "", /^application\/atom\+xml/);
	assert.equal(feed.text.match(/<entry>/g)?.length, 4);
	assert.match(feed.text, /<title>demo\/small-llama: gguf:q4_0<\/title>/);
	assert.doesNotMatch(feed.text, /<script>/);
	assert.match((await page("/")).text, /<a href="\/feed\.atom">/);
});

test("who writes to a page is told that it can only be read", async () => {
	for (const address of ["/", "/m/demo/small-llama", "/jobs", "/no-such-page"]) {
		const response = await fetch(`${site.url}${address}`, { method: "POST", body: "x" });
		assert.equal(response.status, 405, address);
		assert.equal(response.headers.get("allow"), "GET, HEAD");
	}
	assert.equal((await fetch(`${site.url}/`, { method: "HEAD" })).status, 200);
});

test("what is not there is 404, as a page and as JSON", async () => {
	for (const address of [
		"/no-such-page",
		"/m/nobody/nothing",
		"/m/..%2f..%2fetc/passwd",
		`/jobs/${uuid()}`,
		"/jobs/1",
	]) {
		assert.equal((await page(address)).response.status, 404, address);
		const response = await fetch(`${site.url}${address}`, { headers: { Accept: "application/json" } });
		assert.equal(response.status, 404);
		assert.equal(typeof ((await response.json()) as { error: unknown }).error, "string");
	}
	assert.equal((await page("/m/%ff/x")).response.status, 400);
});

test("a fault of ours is a 500 page without particulars", async () => {
	const broken = await startSite({ ...memoryData(), listJobs: () => Promise.reject(new Error("password=hunter2")) });
	try {
		const { response, text } = await page("/jobs", broken.url);
		assert.equal(response.status, 500);
		assert.ok(!text.includes("hunter2"));
	} finally {
		await broken.close();
	}
});

test("alive is not ready: a check that fails is named", async () => {
	assert.equal((await fetch(`${site.url}/readyz`)).status, 200);
	assert.equal((await fetch(`${empty.url}/healthz`)).status, 200);
	const response = await fetch(`${empty.url}/readyz`);
	assert.equal(response.status, 503);
	assert.deepEqual(await response.json(), {
		ready: false,
		checks: [{ name: "hub", ok: false, detail: "no route" }],
	});
});

test("assets are small, cached for ever under their hash, and of the right type", async () => {
	const { text } = await page(`/jobs/${running.id}`);
	const addresses = [...text.matchAll(/"(\/assets\/(?:site|live)\.[^"]+)"/g)].map((match) => match[1] ?? "");
	assert.equal(addresses.length, 2);
	for (const address of addresses) {
		const response = await fetch(`${site.url}${address}`);
		assert.equal(response.status, 200);
		assert.match(response.headers.get("cache-control") ?? "", /immutable/);
		assert.ok((await response.text()).length <= 8 * 1024);
	}
});

test("the template escapes everything but its own markup", () => {
	assert.equal(
		html`<p title="${'"><b>'}">${["a&b", html`<i>${"<"}</i>`, null, false, 3]}</p>`.markup,
		'<p title="&quot;&gt;&lt;b&gt;">a&amp;b<i>&lt;</i>3</p>',
	);
	assert.equal(escapeHtml("\u2066x\u202E`"), "\uFFFDx\uFFFD&#96;");
});
