import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { z } from "zod";
import { systemClock } from "../../src/clock.ts";
import { gitHubForum } from "../../src/commands/github-forum.ts";
import { hubForum } from "../../src/commands/hub-forum.ts";
import { createGitHubAccess } from "../../src/github/github-access.ts";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { listHeads } from "../../src/hub/list-heads.ts";
import { listJobHardware } from "../../src/hub/list-job-hardware.ts";
import { mayRunJobs } from "../../src/hub/may-run-jobs.ts";
import { ownAccount } from "../../src/hub/own-account.ts";
import { personOfToken } from "../../src/hub/person-of-token.ts";
import { tokenRights } from "../../src/hub/token-rights.ts";
import { tryPrivateRepo } from "../../src/hub/try-private-repo.ts";
import { silentLog } from "../../src/log.ts";
import { createPublishPorts } from "../../src/publish/publish-ports.ts";
import { createGitHubActionsRunner } from "../../src/runners/github-actions.ts";
import { createHfJobsRunner } from "../../src/runners/hf-jobs.ts";
import { createHubStaging } from "../../src/runners/hub-staging.ts";
import { pollIssues } from "../../src/server/poll-issues.ts";
import { pollMentions } from "../../src/server/poll-mentions.ts";
import { registerWebhook } from "../../src/server/register-webhook.ts";
import { fetchSource } from "../../src/verify/fetch-source.ts";
import { inspectSource } from "../../src/verify/inspect-source.ts";
import { loadContract } from "../fake-github/api-contract.ts";
import { type FakeGitHub, startFakeGitHub } from "../fake-github/fake-github.ts";
import { call, commit, file } from "../support/local-hub-fixture.ts";
import {
	BOT,
	COMPUTE,
	ended,
	JOBS,
	OWNER,
	READER,
	type RemotePlace,
	root,
	STAGER,
	STAGING,
	startRemotePlace,
} from "../support/remote-place.ts";
import { until } from "../support/scripted-bot.ts";
import { pushTinySource, readTinyManifest, TINY_VERIFICATION, tinyDirectory } from "../support/tiny-variants.ts";
import { type DocumentedCall, documentedCalls } from "./documented-calls.ts";
import description from "./hub-calls.openapi.json" with { type: "json" };

/** What the Hub's description leaves out, and who tells instead how it is called. */
const UNDESCRIBED: Readonly<Record<string, string>> = {
	"GET /api/models": "huggingface_hub list_models, @huggingface/hub listModels",
	"GET /api/models/OWNER/MODEL": "huggingface_hub model_info",
	"GET /api/models/OWNER/MODEL/revision/REV": "huggingface_hub model_info, @huggingface/hub modelInfo",
	"HEAD /OWNER/MODEL/resolve/REV/FILE": "huggingface_hub get_hf_file_metadata",
	"GET /api/organizations/NAME/overview": "huggingface_hub get_organization_overview",
	"POST /api/models/OWNER/MODEL/discussions/NUM/comment/ID/edit": "huggingface_hub edit_discussion_comment",
	"POST /api/validate-yaml": "huggingface_hub RepoCard.validate",
	"POST /OWNER/MODEL.git/info/lfs/objects/batch": "the Git LFS batch API",
	"POST CAS/v1/xorbs/default/HASH": "the Xet protocol, hub-docs docs/xet/api.md",
	"POST CAS/v1/xorb-grants/default/HASH": "the Xet client of huggingface_hub 2",
	"POST CAS/v1/shards": "the Xet protocol, hub-docs docs/xet/api.md",
	"GET CAS/v1/chunks/default/HASH": "the Xet protocol, hub-docs docs/xet/api.md",
	"DELETE /api/repos/delete": "huggingface_hub delete_repo, @huggingface/hub deleteRepo",
};
/** Calls that clients make on their own account, or that the local Hub makes necessary. */
const NOT_THE_BOTS =
	/^(GET \/api\/agent-harnesses|POST \/(v2\/shards)|(PUT|POST) \/lfs\/|GET \/__cdn\/|GET \/api\/models\/[^/]+\/[^/]+\/treesize)/;

type Made = { readonly method: string; readonly path: string; readonly query: string; readonly body: unknown };

const made: Made[] = [];
let recording = false;
let place: RemotePlace;
let github: FakeGitHub;
let work: string;

function note(method: string, address: string, body: unknown): void {
	const url = new URL(address, "http://hub.invalid");
	// The store of contents lies at an address of its own, which names the local Hub's data folder and the repo.
	const path = url.pathname.replace(/^\/cas-[^/]+\/[^/]+/, "");
	made.push({ method, path, query: url.search, body });
}

const recordingFetch: typeof fetch = async (input, init) => {
	const json = typeof init?.body === "string" && init.body.startsWith("{") && !init.body.includes("\n");
	if (recording) note(init?.method ?? "GET", String(input), json ? JSON.parse(String(init?.body)) : undefined);
	return await fetch(input, init);
};

function access(accessToken: string) {
	return {
		hubUrl: place.hub.url,
		accessToken,
		fetch: createHubFetch({ hubUrl: place.hub.url, fetch: recordingFetch }),
	};
}

/** What somebody else does: not the bot's calls. */
async function others<T>(act: () => Promise<T>): Promise<T> {
	recording = false;
	try {
		return await act();
	} finally {
		recording = true;
	}
}

before(async () => {
	work = await mkdtemp(join(tmpdir(), "yaqa-calls-"));
	place = await startRemotePlace({
		onRequest: ({ method, path }) => {
			if (recording) note(method, path, undefined);
		},
	});
	github = await startFakeGitHub({
		folder: join(work, "github"),
		workflowPath: join(root, "workflows", "quantize.yml"),
		path: [place.programFolder, process.env["PATH"] ?? "/usr/bin:/bin"].join(":"),
		variables: { YAQA_STAGING_NAMESPACE: STAGING, HF_ENDPOINT: place.hub.url, YAQA_PUSH_SECONDS: "0.2" },
		secrets: { YAQA_STAGING_TOKEN: STAGER, YAQA_READ_TOKEN: READER },
	});
});
after(async () => {
	await github.close();
	await place.close();
	await rm(work, { recursive: true, force: true });
});

const source = (repo: string): Promise<string> => pushTinySource({ hubUrl: place.hub.url, accessToken: OWNER }, repo);

/** From the webhook to the published repo and its answer, as the bot does each of it. */
async function aDayOnTheHub(): Promise<void> {
	const repo = "lab/tiny";
	const sha = await others(() => source(repo));
	const bot = access(BOT);
	const account = ownAccount(bot);
	await account();
	await tokenRights(bot);
	await tryPrivateRepo({ ...bot, namespace: "bot" });
	await mayRunJobs({ ...access(JOBS), namespace: COMPUTE });
	await listJobHardware(access(READER));
	await personOfToken(bot);

	const publicUrl = "http://127.0.0.1:9";
	const watching = async (repos: readonly string[]): Promise<unknown> =>
		await registerWebhook({
			hub: bot,
			publicUrl,
			secret: "long-enough",
			renewSecret: false,
			watch: { namespaces: ["owner", "lab"], repos } as never,
		});
	await watching([]);
	await watching([repo]);
	const [hook] = (await others(
		async () => (await call(`${place.hub.url}/api/settings/webhooks`, { token: BOT })).json,
	)) as {
		id: string;
	}[];
	await others(() =>
		call(`${place.hub.url}/api/settings/webhooks/${hook?.id}/disable`, { method: "POST", token: BOT }),
	);
	await watching([repo]);
	await registerWebhook({
		hub: bot,
		publicUrl,
		secret: "long-enough",
		renewSecret: false,
		watch: { namespaces: [], repos: [] } as never,
	});

	for await (const _ of listHeads({ ...bot, of: { kind: "namespace", namespace: "lab" } }));
	for await (const _ of listHeads({ ...bot, of: { kind: "repo", repo } }));
	const limits = { maximumWeightBytes: 1e9 };
	// Then the commit is none that a branch ends in.
	const later = await others(() => commit(place.hub, repo, [file("more.txt", "more")], { token: OWNER }));
	assert.equal(later.status, 200, later.text);
	assert.ok((await inspectSource({ ...access(READER), repo, revision: sha, limits })).ok);
	const directory = join(work, "source");
	const signal = AbortSignal.timeout(60_000);
	assert.deepEqual(await fetchSource({ ...access(READER), repo, sha, directory, limits, signal }), { ok: true });

	const variantFolder = join(work, "variant");
	await cp(tinyDirectory("w4a16"), variantFolder, { recursive: true });
	const manifest = await readTinyManifest("w4a16");
	manifest.source = { repo, revision: sha, license: "apache-2.0" };
	await writeFile(join(variantFolder, "manifest.json"), JSON.stringify(manifest));
	const ports = createPublishPorts({
		publisher: bot,
		reader: access(READER),
		discussions: bot,
		namespace: "bot",
		publicUrl: null,
	});
	const job = { id: randomUUID() };
	const variant = { recipe: "w4a16", manifest } as const;
	const staged = { job, variants: [{ variant, directory: variantFolder }], verificationPath: TINY_VERIFICATION };
	assert.ok((await ports.stage(staged)).ok);
	await ports.fetchStaged({ job, variants: [variant], directory: join(work, "staged") });
	await ports.removeStaging({ job });
	const published = await ports.publish({
		targetRepo: "bot/tiny-YAQA-W4A16",
		job: { sourceRepo: repo, sourceSha: sha },
		variants: [{ manifest, directory: variantFolder }],
		siblings: [],
	});
	assert.ok(published.ok, published.ok ? "" : published.refusal.message);
	const status = { sourceRepo: repo, jobs: [], variants: [], refused: null, discussion: null };
	const { discussion } = await ports.announce(status);

	const forum = hubForum({ hub: bot, botUserId: async () => (await account()).id });
	const thread = { repo, thread: discussion ?? 1 };
	await others(() =>
		call(`${place.hub.url}/api/models/${repo}/discussions/${discussion}/comment`, {
			token: OWNER,
			body: { comment: "@bot status" },
		}),
	);
	await forum.read(thread);
	const answer = await forum.post(thread, "Nothing yet.");
	await forum.edit(thread, answer?.id ?? "", "Done.");
	const storeDelivery = async () => ({ id: randomUUID(), duplicate: false });
	await pollMentions({ hub: bot, botName: "bot", storeDelivery, clock: systemClock });
}

/** A run on HF Jobs and one on GitHub's machines, to the end, and one of each that is ended. */
async function runsElsewhere(): Promise<void> {
	const staging = createHubStaging({ hub: access(STAGER), namespace: STAGING });
	const timing = { pollMilliseconds: 100, settleMilliseconds: 3000, cancelMilliseconds: 300 };
	const jobs = createHfJobsRunner({
		hub: access(JOBS),
		namespace: COMPUTE,
		image: "registry.example/yaqa-runner:1",
		flavor: "t4-small",
		timeoutSeconds: 120,
		secrets: { stagingToken: STAGER, readToken: READER },
		staging,
		log: silentLog,
		timing: { ...timing, cancelMilliseconds: 10_000 },
	});
	const { url: apiUrl, appId, privateKey, repository } = github;
	const actions = createGitHubActionsRunner({
		github: createGitHubAccess({ apiUrl, repository, appId, privateKey }),
		workflow: "quantize.yml",
		ref: "main",
		staging,
		log: silentLog,
		timing,
	});
	for (const runner of [jobs, actions]) {
		const spec = await others(() => place.specOf({ steps: 1 }));
		const { handle } = await runner.dispatch(spec);
		const observation = await ended(runner, handle);
		assert.ok(observation.status === "finished" && observation.result.ok, JSON.stringify(observation));
		await runner.collect(handle, join(work, randomUUID()));
		await runner.discard(handle);
		if (runner === actions) github.arm("needs-force");
		const endless = await others(() => place.specOf({ hang: true, steps: 1 }));
		const started = await runner.dispatch(endless);
		await until("its first event", async () => (await runner.events(started.handle, 0)).length > 0 || null);
		await runner.cancel(started.handle);
		await runner.discard(started.handle);
	}
	github.disarm();
	github.arm("succeeds-without-result");
	const spec = await others(() => place.specOf());
	const { handle } = await actions.dispatch(spec);
	await ended(actions, handle);
	await actions.discard(handle);
}

async function aDayOnGitHub(): Promise<void> {
	const { issues, url: apiUrl, appId, privateKey } = github;
	const seen = createGitHubAccess({ apiUrl, repository: issues.repository, appId, privateKey });
	const forum = gitHubForum({ appId, access: () => seen });
	const thread = issues.open("octo", "Variants", "@yaqa-bot quantize");
	const comment = issues.comment("octo", thread, "@yaqa-bot status");
	const here = { repo: issues.repository, thread };
	await forum.read(here);
	await forum.isTrusted(here, { id: null, name: "octo", trusted: null, robot: false });
	for (const id of ["issue", String(comment)]) {
		await forum.acknowledge(here, id, "seen");
		await forum.acknowledge(here, id, "done");
	}
	const answer = await forum.post(here, "Nothing yet.");
	await forum.edit(here, answer?.id ?? "", "Done.");
	const storeDelivery = async () => ({ id: randomUUID(), duplicate: false });
	await pollIssues({
		github: seen,
		botName: "yaqa-bot",
		since: new Date(0),
		storeDelivery,
		clock: systemClock,
	});
}

/** What is on one side only. */
function compare(
	rows: readonly DocumentedCall[],
	calls: readonly { readonly method: string; readonly path: string }[],
): { readonly undocumented: readonly string[]; readonly notMade: readonly string[] } {
	const fits = (row: DocumentedCall, one: { readonly method: string; readonly path: string }): boolean =>
		row.method === one.method && row.pattern.test(one.path);
	return {
		undocumented: [
			...new Set(calls.filter((one) => !rows.some((row) => fits(row, one))).map((one) => `${one.method} ${one.path}`)),
		],
		notMade: rows.filter((row) => !calls.some((one) => fits(row, one))).map(({ method, path }) => `${method} ${path}`),
	};
}

test("docs/calls.md has every call that bot and runner make, and no other", async () => {
	recording = true;
	await aDayOnTheHub();
	await runsElsewhere();
	await aDayOnGitHub();
	recording = false;
	const hub = made.filter((one) => !NOT_THE_BOTS.test(`${one.method} ${one.path}`));
	assert.deepEqual(compare(documentedCalls("The Hub"), hub), { undocumented: [], notMade: [] });
	const onGitHub = github.calls().map((line) => {
		const [method = "", path = ""] = line.split(" ");
		return { method, path: new URL(path, "http://github.invalid").pathname };
	});
	assert.deepEqual(
		compare(
			documentedCalls("GitHub"),
			onGitHub.filter(({ path }) => !path.startsWith("/_logs/")),
		),
		{ undocumented: [], notMade: [] },
	);
	assert.deepEqual(github.breaches, []);
});

const Operation = z.object({
	parameters: z.array(z.object({ name: z.string(), in: z.string(), required: z.boolean().optional() })),
	requestBody: z
		.object({ content: z.record(z.string(), z.object({ schema: z.record(z.string(), z.unknown()) })) })
		.optional(),
});

/** The operations of the Hub's description, each with its pattern over paths. */
function operations() {
	return Object.entries(description.paths).flatMap(([path, methods]) =>
		Object.entries(methods).map(([method, operation]) => ({
			method: method.toUpperCase(),
			name: `${method.toUpperCase()} ${path}`,
			pattern: new RegExp(
				`^${path
					.replaceAll(/[.*+?^$()|[\]\\]/g, "\\$&")
					.replace(/\/\{path\}$/, "(/.*)?")
					.replaceAll(/\{[^}]+\}/g, "[^/]+")}$`,
			),
			operation: Operation.parse(operation),
		})),
	);
}

test("every row is an operation of the service's own description, or named as one that it leaves out", () => {
	const described = operations();
	for (const { method, path } of documentedCalls("The Hub")) {
		const name = `${method} ${path}`;
		const found = described.some((one) => one.method === method && one.pattern.test(path));
		assert.notEqual(found, name in UNDESCRIBED, found ? `${name} is described` : `${name} is not described`);
	}
	const match = loadContract();
	for (const { method, path } of documentedCalls("GitHub")) {
		const numbered = path.replaceAll(/\b(ID|NUM)\b/g, "1").replace("FILE", "quantize.yml");
		assert.ok(match(method, new URL(`https://api.github.com${numbered}`), {}) !== null, `${method} ${path}`);
	}
});

test("what was sent to the Hub fits its description: query, and body by its schema", () => {
	assert.ok(made.length > 100, "the calls of the first test");
	const ajv = new Ajv2020({ strict: false, allErrors: true });
	ajv.removeKeyword("id");
	for (const format of ["date-time", "uri", "email"]) ajv.addFormat(format, () => true);
	const described = operations();
	const checked = new Set<string>();
	for (const { method, path, query, body } of made) {
		const found = described.find((one) => one.method === method && one.pattern.test(path));
		if (found === undefined) continue;
		const { parameters, requestBody } = found.operation;
		const known = new Set(parameters.filter((one) => one.in === "query").map((one) => one.name));
		for (const name of new URLSearchParams(query).keys())
			assert.ok(known.has(name) || known.has(name.replace("[]", "")), `${found.name} has no parameter ${name}`);
		const schema = requestBody?.content["application/json"]?.schema;
		if (schema === undefined || body === undefined) continue;
		const validate = ajv.compile(schema);
		assert.ok(
			validate(body),
			`${found.name}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(body).slice(0, 500)}`,
		);
		checked.add(found.name);
	}
	assert.ok(checked.size >= 8, [...checked].join(", "));
});
