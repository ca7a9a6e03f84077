import assert from "node:assert/strict";
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { RefusalCode } from "../../../src/errors.ts";
import { folderSourceReader } from "../../../src/verify/folder-source-reader.ts";
import { forbidsDerivatives } from "../../../src/verify/hub-source.ts";
import { inspectFiles } from "../../../src/verify/inspect-files.ts";
import type { SourceReader } from "../../../src/verify/source-reader.ts";
import { safetensors } from "../../support/safetensors-bytes.ts";
import { TINY_SOURCE } from "../../support/tiny-variants.ts";

const LIMITS = { maximumWeightBytes: 1e9 };

/** The tiny source with some files replaced (`null`: taken away). */
async function readerWith(changes: Readonly<Record<string, string | Uint8Array | null>>): Promise<SourceReader> {
	const base = await folderSourceReader(TINY_SOURCE);
	const contents = new Map<string, Uint8Array>();
	for (const file of base.files) contents.set(file.path, await base.read(file.path, 0, file.size));
	for (const [path, content] of Object.entries(changes)) {
		if (content === null) contents.delete(path);
		else contents.set(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
	}
	return {
		files: [...contents].map(([path, bytes]) => ({ path, size: bytes.byteLength })),
		read: async (path, start, end) => contents.get(path)?.subarray(start, end) ?? new Uint8Array(0),
	};
}

async function config(change: Readonly<Record<string, unknown>>): Promise<string> {
	const base = await folderSourceReader(TINY_SOURCE);
	const file = base.files.find(({ path }) => path === "config.json");
	const text = new TextDecoder().decode(await base.read("config.json", 0, file?.size ?? 0));
	return JSON.stringify({ ...JSON.parse(text), ...change });
}

async function weights(): Promise<Uint8Array> {
	const base = await folderSourceReader(TINY_SOURCE);
	return base.read("model.safetensors", 0, base.files.find(({ path }) => path === "model.safetensors")?.size ?? 0);
}

function index(map: Readonly<Record<string, unknown>>): string {
	return JSON.stringify({ metadata: {}, weight_map: map });
}

async function assertRefused(
	code: RefusalCode,
	pattern: RegExp,
	changes: Readonly<Record<string, string | Uint8Array | null>>,
) {
	const result = await inspectFiles(await readerWith(changes), LIMITS);
	assert.ok(!result.ok, "it was accepted");
	assert.equal(result.refusal.code, code, result.refusal.message);
	assert.match(result.refusal.message, pattern);
	assert.ok(result.refusal.remedy.length > 10);
	assert.doesNotMatch(result.refusal.message, /[<>`@]/);
}

for (const files of [["tokenizer.model"], ["vocab.json", "merges.txt"]]) {
	test(`a tokenizer of ${files.join(" and ")} alone is one`, async () => {
		const written = Object.fromEntries(files.map((name) => [name, "x"]));
		const result = await inspectFiles(await readerWith({ "tokenizer.json": null, ...written }), LIMITS);
		assert.ok(result.ok);
	});
}

test("a sound model is taken, with what a runner needs and nothing else", async () => {
	const result = await inspectFiles(
		await readerWith({ "train.py": "import os", "optimizer.pt": "x", "logs/run.txt": "x" }),
		LIMITS,
	);
	assert.ok(result.ok);
	assert.equal(result.inspected.architecture, "LlamaForCausalLM");
	assert.equal(result.inspected.weightBytes, 371_336);
	assert.ok(result.inspected.parameters > 180_000 && result.inspected.parameters < 190_000);
	assert.deepEqual(result.inspected.files.map(({ path }) => path).toSorted(), [
		"LICENSE",
		"README.md",
		"config.json",
		"generation_config.json",
		"model.safetensors",
		"tokenizer.json",
		"tokenizer_config.json",
	]);
});

for (const prefix of ["transformer.", ""]) {
	test(`the linears of GPT-2's blocks are counted, outputs first, with the prefix "${prefix}"`, async () => {
		const blocks = [0, 1].flatMap((layer) =>
			Object.entries({
				"ln_1.weight": [8],
				"attn.c_attn.weight": [8, 24],
				"attn.c_proj.weight": [8, 8],
				"mlp.c_fc.weight": [8, 32],
				"mlp.c_proj.weight": [32, 8],
			}).map(([name, shape]) => [`${prefix}h.${layer}.${name}`, shape] as const),
		);
		const result = await inspectFiles(
			await readerWith({
				"config.json": JSON.stringify({
					architectures: ["GPT2LMHeadModel"],
					model_type: "gpt2",
					n_embd: 8,
					n_layer: 2,
					n_head: 2,
					n_positions: 16,
					vocab_size: 20,
				}),
				"model.safetensors": safetensors({
					[`${prefix}wte.weight`]: [20, 8],
					[`${prefix}wpe.weight`]: [16, 8],
					...Object.fromEntries(blocks),
				}),
			}),
			LIMITS,
		);
		assert.ok(result.ok, result.ok ? "" : result.refusal.message);
		assert.deepEqual(
			result.inspected.linears.map(({ rows, columns, count }) => `${count} × ${rows} × ${columns}`),
			["2 × 24 × 8", "2 × 8 × 8", "2 × 32 × 8", "2 × 8 × 32"],
		);
	});
}

test("a sharded model is taken through its index", async () => {
	const bytes = await weights();
	const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
	const names = Object.keys(JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)))).filter(
		(name) => name !== "__metadata__",
	);
	const map = Object.fromEntries(names.map((name) => [name, "model-00001-of-00001.safetensors"]));
	const shard = { "model.safetensors": null, "model-00001-of-00001.safetensors": bytes };
	const result = await inspectFiles(await readerWith({ ...shard, "model.safetensors.index.json": index(map) }), LIMITS);
	assert.ok(result.ok, result.ok ? "" : result.refusal.message);
	assert.ok(result.inspected.files.some(({ path }) => path === "model.safetensors.index.json"));
	await assertRefused("broken-safetensors", /says that .* holds "ghost"/, {
		...shard,
		"model.safetensors.index.json": index({ ...map, ghost: "model-00001-of-00001.safetensors" }),
	});
	const [first = "", ...rest] = names;
	await assertRefused("broken-safetensors", /does not say is there/, {
		...shard,
		"model.safetensors.index.json": index(
			Object.fromEntries(rest.map((name) => [name, "model-00001-of-00001.safetensors"])),
		),
	});
	await assertRefused("broken-safetensors", /which is not in the repo/, {
		...shard,
		"model.safetensors.index.json": index({ ...map, [first]: "model-00002-of-00002.safetensors" }),
	});
});

describe("a source is refused", () => {
	test("empty", async () => {
		const nothing: SourceReader = { files: [], read: async () => new Uint8Array(0) };
		const result = await inspectFiles(nothing, LIMITS);
		assert.equal(result.ok ? "" : result.refusal.code, "empty-repo");
		const readme: SourceReader = {
			files: [
				{ path: "README.md", size: 3 },
				{ path: ".gitattributes", size: 3 },
			],
			read: async () => new Uint8Array(3),
		};
		const second = await inspectFiles(readme, LIMITS);
		assert.equal(second.ok ? "" : second.refusal.code, "empty-repo");
	});
	test("with pickles only", () =>
		assertRefused("pickle-only", /pickle/, { "model.safetensors": null, "pytorch_model.bin": "x" }));
	test("with converted files only", () =>
		assertRefused("already-quantized", /GGUF or ONNX/, { "model.safetensors": null, "model.gguf": "x" }));
	test("made by this bot", () =>
		assertRefused("already-quantized", /made by yaqa-bot/, {
			"manifests/w4a16.json": JSON.stringify({ generator: { name: "yaqa-runner" } }),
		}));
	test("an adapter", () =>
		assertRefused("unknown-architecture", /adapter/, { "config.json": null, "adapter_config.json": "{}" }));
	test("an adapter that brings its base's config.json", () =>
		assertRefused("unknown-architecture", /adapter/, {
			"model.safetensors": null,
			"adapter_model.safetensors": "x",
			"adapter_config.json": "{}",
		}));
	test("without a config", () => assertRefused("broken-config", /no config\.json/, { "config.json": null }));
	test("with a config that is no JSON", () =>
		assertRefused("broken-config", /not a readable JSON object/, { "config.json": "{" }));
	test("with a config that is a list", () =>
		assertRefused("broken-config", /not a readable JSON object/, { "config.json": "[]" }));
	test("with a config of three megabytes", () =>
		assertRefused("broken-config", /2 MiB/, { "config.json": " ".repeat(3e6) }));
	test("that wants its own code run", async () =>
		assertRefused("remote-code", /auto_map/, { "config.json": await config({ auto_map: { AutoModel: "x.Y" } }) }));
	test("whose tokenizer wants its own code run", () =>
		assertRefused("remote-code", /tokenizer_config\.json/, {
			"tokenizer_config.json": JSON.stringify({ auto_map: { AutoTokenizer: ["x.Y", null] } }),
		}));
	test("quantized already", async () =>
		assertRefused("already-quantized", /quantization_config/, {
			"config.json": await config({ quantization_config: { quant_method: "awq" } }),
		}));
	test("of an unknown architecture", async () =>
		assertRefused("unknown-architecture", /not one this version/, {
			"config.json": await config({ architectures: ["<img src=x> @everyone"] }),
		}));
	test("of no architecture", async () =>
		assertRefused("unknown-architecture", /names no architecture/, {
			"config.json": await config({ architectures: [] }),
		}));
	for (const [field, value] of [
		["num_hidden_layers", 1e9],
		["hidden_size", -1],
		["vocab_size", 1.5],
		["intermediate_size", "4096"],
		["num_attention_heads", null],
		["head_dim", 1e12],
	] as const) {
		test(`with ${field} ${value}`, async () =>
			assertRefused("absurd-config", new RegExp(field), { "config.json": await config({ [field]: value }) }));
	}
	test("whose config says another size than the weights have", async () => {
		await assertRefused("broken-config", /layers; the weights have 1/, {
			"config.json": await config({ num_hidden_layers: 900 }),
		});
		await assertRefused("broken-config", /for the embedding/, {
			"config.json": await config({ vocab_size: 4_000_000 }),
		});
	});
	test("with a broken safetensors header", async () => {
		const bytes = (await weights()).slice();
		new DataView(bytes.buffer).setBigUint64(0, 2n ** 63n, true);
		await assertRefused("broken-safetensors", /header claims/, { "model.safetensors": bytes });
	});
	test("cut short", async () =>
		assertRefused("broken-safetensors", /outside the file/, {
			"model.safetensors": (await weights()).slice(0, 100_000),
		}));
	for (const target of [
		"../../etc/passwd",
		"/etc/passwd.safetensors",
		"a/b.safetensors",
		"..\\x.safetensors",
		"http://x/y.safetensors",
		"x..y/../z.safetensors",
		7,
	]) {
		test(`whose index points to ${target}`, () =>
			assertRefused("unsafe-path", /points to/, {
				"model.safetensors": null,
				"other.safetensors": "x",
				"model.safetensors.index.json": index({ a: target }),
			}));
	}
	test("whose index names a tensor twice", () =>
		assertRefused("broken-safetensors", /twice/, {
			"model.safetensors": null,
			"a.safetensors": "x",
			"model.safetensors.index.json": '{"weight_map":{"x":"a.safetensors","x":"a.safetensors"}}',
		}));
	test("with weights under a name no loader reads", () =>
		assertRefused("broken-safetensors", /neither/, { "model.safetensors": null, "consolidated.safetensors": "x" }));
	test("with an unsafe file name", () => assertRefused("unsafe-path", /unsafe name/, { "../evil.safetensors": "x" }));
	test("with names that differ only in case", () =>
		assertRefused("unsafe-path", /only in case/, { "Config.json": "{}" }));
	test("without a tokenizer", () => assertRefused("broken-config", /tokenizer/, { "tokenizer.json": null }));
	test("with half of a tokenizer", () =>
		assertRefused("broken-config", /merges\.txt/, { "tokenizer.json": null, "vocab.json": "{}" }));
	test("too large", async () => {
		const result = await inspectFiles(await readerWith({}), { maximumWeightBytes: 1000 });
		assert.equal(result.ok ? "" : result.refusal.code, "too-large");
	});
	test("stored in integers", async () => {
		const bytes = (await weights()).slice();
		const text = new TextDecoder("latin1").decode(bytes);
		const at = text.indexOf('"dtype":"BF16"', text.indexOf("q_proj"));
		// I16 has BF16's size; a space keeps the header's length.
		bytes.set(new TextEncoder().encode('"dtype":"I16" '), at);
		await assertRefused("already-quantized", /stored as I16/, { "model.safetensors": bytes });
	});
});

test("links in a folder are not part of it", async () => {
	const directory = await mkdtemp(join(tmpdir(), "yaqa-link-"));
	try {
		await symlink("/etc/hostname", join(directory, "config.json"));
		assert.deepEqual((await folderSourceReader(directory)).files, []);
	} finally {
		await rm(directory, { recursive: true });
	}
});

test("licences that allow no derived works are known by their nd", () => {
	for (const license of ["cc-by-nc-nd-4.0", "cc-by-nd-4.0", "CC-BY-ND-3.0"])
		assert.ok(forbidsDerivatives(license), license);
	for (const license of ["apache-2.0", "cc-by-nc-sa-4.0", "openrail", "bsd-3-clause", "wtfpl-and-more", "other"])
		assert.ok(!forbidsDerivatives(license), license);
});

/** A safetensors file of zeros. */
function zeros(shapes: Readonly<Record<string, readonly number[]>>): Uint8Array {
	let end = 0;
	const entries = Object.entries(shapes).map(([name, shape]) => {
		const start = end;
		end += 2 * shape.reduce((product, size) => product * size, 1);
		return [name, { dtype: "BF16", shape, data_offsets: [start, end] }];
	});
	const header = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
	const bytes = new Uint8Array(8 + header.byteLength + end);
	new DataView(bytes.buffer).setBigUint64(0, BigInt(header.byteLength), true);
	bytes.set(header, 8);
	return bytes;
}

describe("families that name their sizes and tensors otherwise", () => {
	const common = { vocab_size: 32, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2 };
	const families: readonly [string, Readonly<Record<string, unknown>>, Readonly<Record<string, readonly number[]>>][] =
		[
			[
				"GPT2LMHeadModel",
				{ vocab_size: 32, n_embd: 8, n_layer: 1, n_head: 2, n_positions: 16, n_inner: null },
				{ "wte.weight": [32, 8], "h.0.attn.c_attn.weight": [8, 24] },
			],
			[
				"GPTNeoXForCausalLM",
				common,
				{ "gpt_neox.embed_in.weight": [32, 8], "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": [32, 8] },
			],
			[
				"OPTForCausalLM",
				{ ...common, ffn_dim: 32, word_embed_proj_dim: 4 },
				{ "model.decoder.embed_tokens.weight": [32, 4], "model.decoder.layers.0.fc1.weight": [32, 8] },
			],
			[
				"Qwen3MoeForCausalLM",
				{ ...common, moe_intermediate_size: 4 },
				{ "model.embed_tokens.weight": [32, 8], "model.layers.0.mlp.experts.0.up_proj.weight": [4, 8] },
			],
		];
	for (const [architecture, sizes, tensors] of families) {
		test(`${architecture} is taken`, async () => {
			const changes = {
				"config.json": JSON.stringify({ architectures: [architecture], ...sizes }),
				"model.safetensors": zeros(tensors),
			};
			const result = await inspectFiles(await readerWith(changes), LIMITS);
			assert.deepEqual(result.ok ? null : result.refusal, null);
		});
	}
	test("a size under another name is bounded all the same", () =>
		assertRefused("absurd-config", /n_embd must be a whole number/, {
			"config.json": JSON.stringify({ architectures: ["GPT2LMHeadModel"], ...common, hidden_size: null, n_embd: 1e9 }),
		}));
});

test("files that keep to every limit alone are refused for what they hold together", async () => {
	const shard = (number: number, tensors: number): Uint8Array => {
		const header: Record<string, unknown> = {};
		for (let index = 0; index < tensors; index++) {
			header[`s${number}.${index}`] = { dtype: "F32", shape: [0], data_offsets: [0, 0] };
		}
		const json = new TextEncoder().encode(JSON.stringify(header));
		const bytes = new Uint8Array(8 + json.byteLength);
		new DataView(bytes.buffer).setBigUint64(0, BigInt(json.byteLength), true);
		bytes.set(json, 8);
		return bytes;
	};
	const shards = Object.fromEntries([0, 1, 2].map((number) => [`model-${number}.safetensors`, shard(number, 90_000)]));
	// The index names too few to be noticed by itself.
	const map = Object.fromEntries([0, 1, 2].map((number) => [`s${number}.0`, `model-${number}.safetensors`]));
	const whole = Object.fromEntries(
		[0, 1, 2].flatMap((number) =>
			Array.from({ length: 90_000 }, (_, tensor) => [`s${number}.${tensor}`, `model-${number}.safetensors`]),
		),
	);
	const changes = { "model.safetensors": null, ...shards };
	await assertRefused("broken-safetensors", /does not say is there/, {
		...changes,
		"model.safetensors.index.json": index(map),
	});
	await assertRefused("broken-safetensors", /more than 250000 tensors together/, {
		...changes,
		"model.safetensors.index.json": index(whole),
	});
});

test("files beside the weights are counted together", async () => {
	const reader = await readerWith({});
	const huge = ["vocab.json", "merges.txt", "added_tokens.json"].map((path) => ({ path, size: 200 * 2 ** 20 }));
	const result = await inspectFiles({ ...reader, files: [...reader.files, ...huge] }, LIMITS);
	assert.equal(result.ok ? "" : result.refusal.code, "too-large");
});
