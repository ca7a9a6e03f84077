import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { type ApiAnswers, readApiDescription } from "../support/api-answers.ts";
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

const running = makeJob({ plannedSeconds: 90.5, planText: "A plan.", remark: "A remark." });
const published = makeVariant({ shape: EIGHT_BILLION });
const wanted = makeVariant({ recipe: "onnx:q4", state: "wanted", jobId: running.id });
const queued = makeJob({ state: "waiting", startedAt: null, heldUntil: NOW });
const failed = makeJob({
	state: "failed",
	finishedAt: NOW,
	refusal: { code: "pickle-only", message: "Only pickle.", remedy: "Save it again." },
});

let site: TestSite;
let unwell: TestSite;
let api: ApiAnswers;
before(async () => {
	const data = memoryData({
		variants: [published, wanted, makeVariant({ recipe: "no recipe", jobId: running.id })],
		jobs: [running, queued, failed],
		events: makeEvents(running.id),
		places: { [queued.id]: { ahead: 1, front: { id: running.id, sourceRepo: "demo/small-llama", isRunning: false } } },
		deliveries: [
			{
				id: uuid(),
				source: "hub",
				dedupeKey: "k",
				receivedAt: NOW,
				outcome: "ignored",
				detail: null,
				body: { event: { action: "update", scope: "repo.content" }, repo: { name: "demo/small-llama" } },
			},
		],
	});
	site = await startSite(data, { checks: [{ name: "database", cacheSeconds: 0, check: () => Promise.resolve() }] });
	unwell = await startSite(memoryData(), {
		checks: [{ name: "hub", cacheSeconds: 60, check: () => Promise.reject(new Error("no route")) }],
	});
	api = await readApiDescription(site.url);
});
after(async () => {
	await site.close();
	await unwell.close();
});

test("real answers of every documented path are as documented, no field more or less", async () => {
	const addresses: Readonly<Record<string, readonly string[]>> = {
		"/": ["/", "/?q=llama&container=gguf&bits=4&size=4GB", "/?q=nothing"],
		"/variants": ["/variants", "/variants?q=nothing"],
		"/m/{owner}/{name}": [
			"/m/demo/small-llama",
			"/m/demo/small-llama?fits=8+GB&context=8k",
			"/m/demo/small-llama?fits=x",
		],
		"/v/{id}": [`/v/${published.id}`, `/v/${wanted.id}`],
		"/jobs/{id}/log": [`/jobs/${running.id}/log`, `/jobs/${running.id}/log?q=warning&layers=1&after=3`],
		"/jobs": ["/jobs"],
		"/jobs/{id}": [running, queued, failed].map((job) => `/jobs/${job.id}`),
		"/deliveries": ["/deliveries"],
		"/help": ["/help"],
		"/about": ["/about"],
		"/healthz": ["/healthz"],
		"/readyz": ["/readyz"],
	};
	for (const [path, samples] of Object.entries(addresses)) {
		for (const address of samples) await api.check(path, address);
	}
	for (const path of ["/my", "/operator"]) await api.check(path, path, 404);
	await api.check("/m/{owner}/{name}", "/m/nobody/nothing", 404);
	await api.check("/v/{id}", `/v/${uuid()}`, 404);
	await api.check("/jobs/{id}", `/jobs/${uuid()}`, 404);
	await api.check("/jobs/{id}/log", `/jobs/${uuid()}/log`, 404);
	await api.check("/jobs/{id}/events", `/jobs/${uuid()}/events`, 404);
	await api.check("/jobs/{id}/events", `/jobs/${running.id}/events?after=x`, 400);
	const ill = await readApiDescription(unwell.url);
	await ill.check("/readyz", "/readyz", 503);
	for (const path of ["/", "/variants", "/jobs", "/deliveries"]) await ill.check(path, path);
	const stream = await fetch(`${site.url}/jobs/${running.id}/events`);
	assert.match(stream.headers.get("content-type") ?? "", /^text\/event-stream/);
	await stream.body?.cancel();
	assert.deepEqual([...Object.keys(addresses), "/jobs/{id}/events", "/my", "/operator"].sort(), [...api.paths].sort());
});

test("an answer with a field that is not documented, without one that is, or of another kind is noticed", async () => {
	const page = (await api.check("/jobs/{id}", `/jobs/${running.id}`)) as { job: Record<string, unknown> };
	const { state: _state, ...without } = page.job;
	for (const job of [{ ...page.job, runnerHandle: "secret" }, without, { ...page.job, createdAt: 5 }]) {
		assert.equal(api.faults("/jobs/{id}", 200, { ...page, job }).length, 1);
	}
	assert.deepEqual(api.faults("/jobs", 500, {}), ["/jobs has no answer 500"]);
});

test("every address that answers with JSON is documented, and the help page links the document", async () => {
	const folder = new URL("../../src/web/routes/", import.meta.url);
	const source = readdirSync(folder).map((name) => readFileSync(new URL(name, folder), "utf8"));
	const routes = source
		.flatMap((text) => [...text.matchAll(/router\.get\("([^"]+)"/g)])
		.map(([, address = ""]) => address.replaceAll(/:([a-z]+)/g, "{$1}"));
	const withoutTwin = [
		"/auth/sign-in",
		"/robots.txt",
		"/v/{id}/try",
		"/sitemap.xml",
		"/feed.atom",
		"/m/{owner}/{name}/badge.svg",
		"/m/{owner}/{name}/plot.png",
		"/metrics",
		"/openapi.json",
	];
	assert.deepEqual(routes.filter((address) => !withoutTwin.includes(address)).sort(), [...api.paths].sort());
	const help = await (await fetch(`${site.url}/help`, { headers: { Accept: "text/html" } })).text();
	assert.match(help, /<a href="\/openapi\.json">/);
});
