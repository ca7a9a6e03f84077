import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { createBranch, createRepo, uploadFiles } from "@huggingface/hub";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { listHeads } from "../../src/hub/list-heads.ts";
import { updateRepoSettings } from "../../src/hub/update-repo-settings.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { fetchSource } from "../../src/verify/fetch-source.ts";
import { inspectSource } from "../../src/verify/inspect-source.ts";
import { commit, file, textAt } from "../support/local-hub-fixture.ts";
import { TINY_SOURCE } from "../support/tiny-variants.ts";

const OWNER = "hf_owner_token";
const READER = "hf_reader_token";
const STRANGER = "hf_stranger_token";
const LIMITS = { maximumWeightBytes: 1e9 };

let hub: LocalHub;
let work: string;
const requests: string[] = [];

before(async () => {
	work = await mkdtemp(join(tmpdir(), "yaqa-inspect-"));
	hub = await startLocalHub({
		dataDirectory: join(work, "hub"),
		users: [
			{ name: "owner", token: OWNER },
			{ name: "bot", token: READER },
			{ name: "stranger", token: STRANGER },
		],
		onRequest: ({ method, path }) => requests.push(`${method} ${path}`),
	});
});

after(async () => {
	await hub.close();
	await rm(work, { recursive: true, force: true });
});

function access(accessToken: string) {
	return { hubUrl: hub.url, accessToken, fetch: createHubFetch({ hubUrl: hub.url, attempts: 2 }) };
}

async function push(
	name: string,
	extra: Readonly<Record<string, string>> = {},
	visibility: "public" | "private" = "public",
) {
	await createRepo({ ...access(OWNER), repo: name, visibility });
	const done = await uploadFiles({
		...access(OWNER),
		repo: name,
		files: [
			pathToFileURL(`${TINY_SOURCE}/`),
			...Object.entries(extra).map(([path, text]) => ({ path, content: new Blob([text]) })),
		],
	});
	return done?.commit.oid ?? "";
}

const inspect = (repo: string, revision = "main") =>
	inspectSource({ ...access(READER), repo, revision, limits: LIMITS });

async function assertRefused(repo: string, code: string, revision = "main"): Promise<void> {
	const result = await inspect(repo, revision);
	assert.equal(result.ok ? "accepted" : result.refusal.code, code);
}

test("a sound source is described without downloading its weights", async () => {
	const sha = await push("owner/sound");
	requests.length = 0;
	const result = await inspect("owner/sound");
	assert.ok(result.ok, result.ok ? "" : result.refusal.message);
	const { pipelineTag, architectures } = result.told;
	assert.deepEqual(
		{ pipelineTag, architectures },
		{ pipelineTag: "text-generation", architectures: ["LlamaForCausalLM"] },
	);
	const { files: _, content: __, linears, ...facts } = result.facts;
	assert.deepEqual(linears.map(({ rows, columns, count }) => `${count} × ${rows} × ${columns}`).toSorted(), [
		"1 × 128 × 256",
		"2 × 128 × 128",
		"2 × 256 × 128",
		"2 × 64 × 128",
	]);
	assert.deepEqual(
		{ ...facts, tags: [], parameters: 0 },
		{
			repo: "owner/sound",
			currentName: "owner/sound",
			sha,
			headSha: sha,
			architecture: "LlamaForCausalLM",
			modelType: "llama",
			parameters: 0,
			weightBytes: 371_336,
			vocabulary: 291,
			license: "apache-2.0",
			gated: false,
			private: false,
			base: null,
			tags: [],
			shape: {
				architecture: "LlamaForCausalLM",
				attention: [{ keyWidth: 64, layers: 1, valueWidth: 64, window: null }],
				contextLength: 128,
				feedForward: 256,
				hidden: 128,
				layers: 1,
				stateWidth: 0,
				vocabulary: 291,
			},
		},
	);
	assert.equal(requests.filter((line) => line.includes("model.safetensors")).length, 1, requests.join("\n"));
});

test("commits are told apart by weights and by what travels with them, not by their card", async () => {
	await push("owner/content");
	const contentOf = async () => {
		const result = await inspect("owner/content");
		assert.ok(result.ok);
		return result.facts.content;
	};
	const change = async (path: string, text: string) =>
		await uploadFiles({
			...access(OWNER),
			repo: "owner/content",
			files: [{ path, content: new Blob([text]) }],
		});
	const first = await contentOf();
	assert.ok(first !== null);
	await change("README.md", "Another card.");
	await change("notes.txt", "Nothing a model needs.");
	assert.deepEqual(await contentOf(), first);
	await change("chat_template.jinja", "{{ messages }}");
	const second = await contentOf();
	assert.equal(second?.weights, first.weights);
	assert.notEqual(second?.companions, first.companions);
	const config = JSON.parse(await readFile(join(TINY_SOURCE, "config.json"), "utf8")) as object;
	await change("config.json", JSON.stringify({ ...config, rope_theta: 12345 }));
	assert.notEqual((await contentOf())?.weights, first.weights);
});

test("its snapshot arrives whole, code stays away, and a broken copy is fetched again", async () => {
	const sha = await push("owner/fetched", { "modeling_evil.py": "raise SystemExit", "extra.bin": "x" });
	const directory = join(work, "snapshot");
	const signal = new AbortController().signal;
	const fetchIt = () =>
		fetchSource({ ...access(READER), repo: "owner/fetched", sha, directory, limits: LIMITS, signal });
	assert.deepEqual(await fetchIt(), { ok: true });
	assert.deepEqual((await readdir(directory)).toSorted(), [
		"LICENSE",
		"README.md",
		"config.json",
		"generation_config.json",
		"model.safetensors",
		"tokenizer.json",
		"tokenizer_config.json",
	]);
	const weights = await readFile(join(TINY_SOURCE, "model.safetensors"));
	assert.deepEqual(await readFile(join(directory, "model.safetensors")), weights);
	await writeFile(join(directory, "model.safetensors"), Buffer.alloc(weights.byteLength));
	await writeFile(join(directory, "config.json"), "{}");
	requests.length = 0;
	assert.deepEqual(await fetchIt(), { ok: true });
	assert.deepEqual(await readFile(join(directory, "model.safetensors")), weights);
	assert.ok(!requests.some((line) => line.includes("tokenizer.json")), "what is whole is kept");
});

test("a fetch that is cancelled leaves no half file under a real name", async () => {
	const sha = await push("owner/cancelled");
	const directory = join(work, "cancelled");
	const controller = new AbortController();
	controller.abort(new Error("stop"));
	await assert.rejects(
		fetchSource({
			...access(READER),
			repo: "owner/cancelled",
			sha,
			directory,
			limits: LIMITS,
			signal: controller.signal,
		}),
		/stop/,
	);
	assert.deepEqual(await readdir(directory), []);
});

test("what cannot be quantized is refused with its reason", async () => {
	await assertRefused("owner/nowhere", "repo-not-found");
	await push("owner/hidden", {}, "private");
	await assertRefused("owner/hidden", "repo-not-found");
	await assertRefused("owner/sound", "not-permitted", "no-such-branch");
	await createRepo({ ...access(OWNER), repo: "owner/empty" });
	await assertRefused("owner/empty", "empty-repo");
	await push("owner/no-derivatives", { "README.md": "---\nlicense: cc-by-nc-nd-4.0\n---\n" });
	await assertRefused("owner/no-derivatives", "licence-forbids");
	await createRepo({ ...access(OWNER), repo: "owner/pickled" });
	await uploadFiles({
		...access(OWNER),
		repo: "owner/pickled",
		files: [{ path: "pytorch_model.bin", content: new Blob(["x"]) }],
	});
	await assertRefused("owner/pickled", "pickle-only");
	await push("owner/gated");
	await updateRepoSettings({ ...access(OWNER), repo: "owner/gated", settings: { gated: "manual" } });
	await assertRefused("owner/gated", "gated-without-access");
});

test("a stranger's pull request is refused by its ref and by its commit, and the owner's history is not", async () => {
	const first = await push("owner/proposed");
	const next = await uploadFiles({
		...access(OWNER),
		repo: "owner/proposed",
		files: [{ path: "notes.txt", content: new Blob(["Next."]) }],
	});
	const head = next?.commit.oid ?? "";
	const proposal = await commit(hub, "owner/proposed", [file("config.json", "{}")], {
		token: STRANGER,
		query: "?create_pr=1",
	});
	const foreign = textAt(proposal.json, "commitOid");
	assert.match(foreign, /^[0-9a-f]{40}$/);
	for (const revision of ["refs/pr/1", foreign, foreign.slice(0, 10), "refs/pr/1/head", "HEAD~1", "refs/convert/x"]) {
		await assertRefused("owner/proposed", "not-permitted", revision);
		const refused = await inspect("owner/proposed", revision);
		assert.ok(!refused.ok && refused.sha === null, "no job is recorded for it");
	}
	await createBranch({ ...access(OWNER), repo: "owner/proposed", branch: "trial/one", revision: first });
	for (const [revision, sha] of [
		["main", head],
		["refs/heads/main", head],
		[head, head],
		[first, first],
		[first.slice(0, 8), first],
		["trial/one", first],
		["refs/heads/trial/one", first],
	] as const) {
		const found = await inspect("owner/proposed", revision);
		assert.ok(found.ok, found.ok ? "" : found.refusal.message);
		assert.deepEqual([found.facts.sha, found.facts.headSha], [sha, head], revision);
	}
});

test("a commit that was looked at is named in the refusal", async () => {
	const result = await inspect("owner/pickled");
	assert.ok(!result.ok);
	assert.match(result.sha ?? "", /^[0-9a-f]{40}$/);
});

test("the heads of a namespace are its visible models with their commits", async () => {
	const heads = new Map<string, string>();
	for await (const { repo, sha } of listHeads({ ...access(READER), of: { kind: "namespace", namespace: "owner" } }))
		heads.set(repo, sha);
	assert.ok(heads.has("owner/sound"));
	assert.ok(!heads.has("owner/hidden"));
	const one: string[] = [];
	for await (const { sha } of listHeads({ ...access(READER), of: { kind: "repo", repo: "owner/sound" } }))
		one.push(sha);
	assert.deepEqual(one, [heads.get("owner/sound")]);
	for await (const _ of listHeads({ ...access(READER), of: { kind: "repo", repo: "owner/nowhere" } }))
		assert.fail("there is no such repo");
});
