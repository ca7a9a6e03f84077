import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { createBranch, createRepo, uploadFiles } from "@huggingface/hub";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { updateRepoSettings } from "../../src/hub/update-repo-settings.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { readOriginalCard } from "../../src/publish/source-card.ts";
import { fetchSource } from "../../src/verify/fetch-source.ts";
import { inspectSource } from "../../src/verify/inspect-source.ts";
import { safetensors } from "../support/safetensors-bytes.ts";
import { TINY_SOURCE } from "../support/tiny-variants.ts";

const OWNER = "hf_owner_token";
const OTHER = "hf_other_token";
const READER = "hf_reader_token";
const LIMITS = { maximumWeightBytes: 1e9 };
const QUERY = "base_model.model.model.layers.0.self_attn.q_proj";
const FACTORS: Readonly<Record<string, readonly number[]>> = {
	[`${QUERY}.lora_A.weight`]: [4, 128],
	[`${QUERY}.lora_B.weight`]: [128, 4],
};

let hub: LocalHub;
let work: string;
const requests: string[] = [];

before(async () => {
	work = await mkdtemp(join(tmpdir(), "yaqa-adapter-"));
	const orgs = [{ name: "lab", role: "read" }] as const;
	hub = await startLocalHub({
		dataDirectory: join(work, "hub"),
		users: [
			{ name: "owner", token: OWNER, orgs: [{ name: "lab", role: "admin" }] },
			{ name: "other", token: OTHER },
			{ name: "bot", token: READER, orgs },
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

type Files = Readonly<Record<string, string | Uint8Array<ArrayBuffer>>>;

async function push(repo: string, files: Files | "tiny", visibility: "public" | "private" = "public"): Promise<string> {
	const token = repo.startsWith("other/") ? OTHER : OWNER;
	await createRepo({ ...access(token), repo, visibility });
	return await commit(repo, files);
}

async function commit(repo: string, files: Files | "tiny"): Promise<string> {
	const token = repo.startsWith("other/") ? OTHER : OWNER;
	const listed =
		files === "tiny"
			? [pathToFileURL(`${TINY_SOURCE}/`)]
			: Object.entries(files).map(([path, content]) => ({ path, content: new Blob([content]) }));
	return (await uploadFiles({ ...access(token), repo, files: listed }))?.commit.oid ?? "";
}

function adapter(base: string | null, changes: Readonly<Record<string, unknown>> = {}, factors = FACTORS): Files {
	const config = { peft_type: "LORA", base_model_name_or_path: base, revision: null, auto_mapping: null, ...changes };
	return {
		"adapter_config.json": JSON.stringify(config),
		"adapter_model.safetensors": safetensors(factors),
		"README.md": "---\nlicense: mit\n---\n",
		"run_me.py": "raise SystemExit",
	};
}

const inspect = (repo: string, baseSha: string | null = null) =>
	inspectSource({ ...access(READER), repo, revision: "main", baseSha, limits: LIMITS });

async function refusalOf(repo: string): Promise<string> {
	const result = await inspect(repo);
	return result.ok ? "accepted" : `${result.refusal.code}: ${result.refusal.message}`;
}

test("an adapter is described by its base's sizes, and pinned to its base's commit", async () => {
	const first = await push("owner/base", "tiny");
	await push("owner/tuned", adapter("owner/base"));
	requests.length = 0;
	const looked = await inspect("owner/tuned");
	assert.ok(looked.ok, looked.ok ? "" : looked.refusal.message);
	const { facts, told } = looked;
	assert.deepEqual(
		[facts.repo, facts.architecture, facts.license, facts.base?.repo, facts.base?.sha],
		["owner/tuned", "LlamaForCausalLM", "mit", "owner/base", first],
	);
	assert.deepEqual(told.architectures, ["LlamaForCausalLM"], "rules by kind find the base's");
	assert.deepEqual(facts.files.map(({ path }) => path).toSorted(), [
		"README.md",
		"adapter_config.json",
		"adapter_model.safetensors",
	]);
	const reads = requests.filter((line) => /resolve\/.*safetensors$/.test(line));
	assert.equal(reads.length, 2, "of the weights the headers alone are read");

	const second = await commit("owner/base", { "notes.txt": "changed" });
	const now = await inspect("owner/tuned");
	assert.equal(now.ok && now.facts.base?.sha, second);
	assert.notEqual(now.ok && now.facts.content?.weights, facts.content?.weights, "another base, other weights");
	const settled = await inspect("owner/tuned", first);
	assert.equal(settled.ok && settled.facts.base?.sha, first);
	await createBranch({ ...access(OWNER), repo: "owner/base", branch: "v1", revision: first });
	await push("owner/tuned-v1", adapter("owner/base", { revision: "v1" }));
	const named = await inspect("owner/tuned-v1");
	assert.equal(named.ok && named.facts.base?.sha, first, "the revision that the adapter names");

	const signal = new AbortController().signal;
	const [directory, base] = [join(work, "fetched", "adapter"), join(work, "fetched", "base")];
	const fetched = await fetchSource({
		...access(READER),
		repo: "owner/tuned",
		sha: facts.sha,
		directory,
		base: { sha: first, directory: base },
		limits: LIMITS,
		signal,
	});
	assert.deepEqual(fetched, { ok: true });
	assert.deepEqual((await readdir(directory)).toSorted(), facts.files.map(({ path }) => path).toSorted());
	assert.ok((await readdir(base)).includes("model.safetensors"));
});

test("what is published of it is as visible as the less visible of the two, under both licences", async () => {
	const seen = async (repo: string, bases: readonly string[]) => {
		const card = await readOriginalCard({ ...access(READER), repo, bases });
		return card === null ? null : [card.private, card.gated, card.license, ...card.bases.map((one) => one.license)];
	};
	await push("lab/closed", "tiny", "private");
	await push("lab/own", adapter("lab/closed"), "private");
	const looked = await inspect("lab/own");
	assert.ok(looked.ok, looked.ok ? "" : looked.refusal.message);
	assert.equal(looked.facts.private, true);
	await push("lab/asks", "tiny");
	await push("lab/of-asking", adapter("lab/asks"));
	assert.deepEqual(await seen("lab/of-asking", ["lab/asks"]), [false, false, "mit", "apache-2.0"]);
	await updateRepoSettings({ ...access(OWNER), repo: "lab/asks", settings: { gated: "auto" } });
	assert.deepEqual(await seen("lab/of-asking", ["lab/asks"]), [false, "auto", "mit", "apache-2.0"]);
	await updateRepoSettings({ ...access(OWNER), repo: "lab/asks", settings: { visibility: "private" } });
	assert.deepEqual(await seen("lab/of-asking", ["lab/asks"]), [true, "auto", "mit", "apache-2.0"]);
	assert.equal(await seen("lab/of-asking", ["lab/gone"]), null);
});

test("a base that may not be taken is refused like one that is not there", async () => {
	await push("lab/hidden", "tiny", "private");
	await push("owner/of-hidden", adapter("lab/hidden"));
	await push("lab/open-of-hidden", adapter("lab/hidden"));
	await push("other/of-hidden", adapter("lab/hidden"), "private");
	await push("owner/of-nothing", adapter("lab/nowhere"));
	const missing = (await refusalOf("owner/of-nothing")).replace("lab/nowhere", "lab/hidden");
	assert.match(missing, /^repo-not-found: The adapter's base "lab\/hidden" is no model repo that the bot can see/);
	for (const repo of ["owner/of-hidden", "lab/open-of-hidden"]) assert.equal(await refusalOf(repo), missing);
});

test("what cannot be merged is refused by its cause", async () => {
	await push("owner/sound", "tiny");
	await push("owner/gated", "tiny");
	await updateRepoSettings({ ...access(OWNER), repo: "owner/gated", settings: { gated: "manual" } });
	await push("owner/packed", "tiny");
	const config: object = { architectures: ["LlamaForCausalLM"], quantization_config: { quant_method: "bitsandbytes" } };
	await commit("owner/packed", { "config.json": JSON.stringify(config) });
	await push("owner/inner", adapter("owner/sound"));
	const { "adapter_model.safetensors": weights, ...unweighted } = adapter("owner/sound");
	assert.ok(weights !== undefined);
	const cases: readonly (readonly [files: Files, says: RegExp])[] = [
		[adapter("owner/gated"), /^gated-without-access: The adapter's base "owner\/gated" cannot be taken/],
		[adapter("owner/packed"), /^already-quantized: The adapter's base .* quantized already .*bitsandbytes/],
		[adapter("owner/inner"), /^unsupported-model: The adapter's base "owner\/inner" is an adapter itself/],
		[adapter("owner/sound", { revision: "refs/pr/1" }), /^not-permitted: .*"refs\/pr\/1" is no branch or tag/],
		[adapter("/home/me/models/llama"), /^broken-config: .*"\/home\/me\/models\/llama", which is no repo on the Hub/],
		[adapter(null), /^broken-config: The adapter names no base/],
		[adapter("owner/sound", { peft_type: "IA3" }), /^unknown-architecture: The adapter is of the kind "IA3"/],
		[adapter("owner/sound", { auto_mapping: { parent_library: "evil" } }), /^remote-code: .*auto_mapping/],
		[adapter("owner/sound", { megatron_config: {}, megatron_core: "evil" }), /^remote-code: .*megatron_config/],
		[
			adapter("owner/sound", {}, { ...FACTORS, [`${QUERY}.lora_A.weight`]: [4, 64] }),
			/^source-refused: .*self_attn\.q_proj" as a linear of 128 × 64; the base's is 128 × 128/,
		],
		[adapter("owner/sound", {}, { "other.weight": [1] }), /^broken-safetensors: .*holds no factors of a LoRA/],
		[{ ...unweighted, "adapter_model.bin": "pickle" }, /^pickle-only: The adapter's weights are only in/],
		[{ ...adapter("owner/sound"), "adapter_config.json": "[" }, /^broken-config: adapter_config.json is not readable/],
	];
	for (const [index, [files, says]] of cases.entries()) {
		await push(`owner/case-${index}`, files);
		assert.match(await refusalOf(`owner/case-${index}`), says);
	}
});
