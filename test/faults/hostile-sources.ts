import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync, gzipSync } from "node:zlib";
import { TINY_SOURCE } from "../support/tiny-variants.ts";

/** A model folder that somebody made to harm whoever reads it. */
export type HostileSource = {
	readonly name: string;
	/** `harmless`: what is hostile is never opened, and the model is taken. */
	readonly ends: "refused" | "harmless";
	/** Of each language's look: of the processor, the start of the process and imports aside. */
	readonly seconds: number;
	readonly mebibytes: number;
	/** Also in the short form. */
	readonly short?: true;
	/** Changes a sound folder. */
	readonly change: (folder: string) => void;
};

type Json = Record<string, unknown>;
type Tensor = { dtype: string; shape: number[]; data_offsets: number[] };

function readJson(folder: string, name: string): Json {
	const value: unknown = JSON.parse(readFileSync(join(folder, name), "utf8"));
	return typeof value === "object" && value !== null ? { ...value } : {};
}

function write(folder: string, name: string, content: string | Uint8Array): void {
	mkdirSync(join(folder, name, ".."), { recursive: true });
	writeFileSync(join(folder, name), content);
}

/** Other values in a JSON file of the folder. */
function set(name: string, changes: Json) {
	return (folder: string): void => write(folder, name, JSON.stringify({ ...readJson(folder, name), ...changes }));
}

function file(name: string, content: () => string | Uint8Array) {
	return (folder: string): void => write(folder, name, content());
}

function link(name: string, target: string) {
	return (folder: string): void => {
		rmSync(join(folder, name));
		symlinkSync(target, join(folder, name));
	};
}

function weights(folder: string): { header: Record<string, Tensor>; data: Buffer } {
	const bytes = readFileSync(join(folder, "model.safetensors"));
	const length = Number(bytes.readBigUInt64LE(0));
	const header: Record<string, Tensor> & { __metadata__?: unknown } = JSON.parse(
		bytes.subarray(8, 8 + length).toString("utf8"),
	);
	delete header.__metadata__;
	return { header, data: bytes.subarray(8 + length) };
}

function safetensors(
	header: string | Uint8Array,
	data: Uint8Array,
	length = BigInt(Buffer.byteLength(header)),
): Buffer {
	const first = Buffer.alloc(8);
	first.writeBigUInt64LE(length);
	return Buffer.concat([first, Buffer.from(header), data]);
}

/** Another header over the same bytes. */
function header(change: (tensors: Record<string, Tensor>, size: number) => unknown) {
	return (folder: string): void => {
		const found = weights(folder);
		const changed = change(found.header, found.data.length) ?? found.header;
		const text = typeof changed === "string" ? changed : JSON.stringify(changed);
		write(folder, "model.safetensors", safetensors(text, found.data));
	};
}

/** Something else about the tensor that is named first. */
function firstTensor(change: (tensor: Tensor, size: number) => Partial<Tensor>) {
	return header((tensors, size) => {
		const [tensor] = Object.values(tensors);
		if (tensor === undefined) throw new Error("The tiny model has no tensors.");
		Object.assign(tensor, change(tensor, size));
	});
}

/** The same weights under an index that says `map`. */
function index(map: (names: readonly string[]) => Json) {
	return (folder: string): void => {
		const names = Object.keys(weights(folder).header);
		cpSync(join(folder, "model.safetensors"), join(folder, "model-00001-of-00001.safetensors"));
		rmSync(join(folder, "model.safetensors"));
		write(folder, "model.safetensors.index.json", JSON.stringify({ metadata: {}, weight_map: map(names) }));
	};
}

function tokenizer(change: (document: Json) => void) {
	return (folder: string): void => {
		const document = readJson(folder, "tokenizer.json");
		change(document);
		write(folder, "tokenizer.json", JSON.stringify(document));
	};
}

/** A number of the first tensor's becomes one that is none. */
function poison(bits: number) {
	return (folder: string): void => {
		const { header: tensors, data } = weights(folder);
		const name = Object.keys(tensors).find((one) => one.includes("q_proj")) ?? "";
		data.writeUInt16LE(bits, tensors[name]?.data_offsets[0] ?? 0);
		write(folder, "model.safetensors", safetensors(JSON.stringify(tensors), data));
	};
}

const nested = (open: string, close: string, times: number): string => open.repeat(times) + close.repeat(times);
const u64 = (value: bigint): Buffer => {
	const bytes = Buffer.alloc(8);
	bytes.writeBigUInt64LE(value);
	return bytes;
};
const replace = (pattern: unknown, content: string): Json => ({ type: "Replace", pattern, content });
const PICKLE = Buffer.from("80027d71002e", "hex");
const REFUSED = { ends: "refused", seconds: 10, mebibytes: 512 } as const;
const HARMLESS = { ends: "harmless", seconds: 20, mebibytes: 512 } as const;

export const HOSTILE_SOURCES: readonly HostileSource[] = [
	// Code
	{
		name: "weights that are a pickle alone",
		...REFUSED,
		short: true,
		change(folder) {
			rmSync(join(folder, "model.safetensors"));
			write(folder, "pytorch_model.bin", PICKLE);
		},
	},
	{ name: "a pickle beside sound weights", ...HARMLESS, change: file("pytorch_model.bin", () => PICKLE) },
	{
		name: "a pickle that is named safetensors",
		...REFUSED,
		change: file("model.safetensors", () => Buffer.concat([PICKLE, Buffer.alloc(4096)])),
	},
	{
		name: "auto_map in the configuration",
		...REFUSED,
		short: true,
		change: set("config.json", { auto_map: { AutoModelForCausalLM: "evil.Model" } }),
	},
	{
		name: "auto_map in the tokenizer's configuration",
		...REFUSED,
		change: set("tokenizer_config.json", { auto_map: { AutoTokenizer: ["evil.Tokenizer", null] } }),
	},
	{
		name: "a tokenizer class of the repo's own",
		...HARMLESS,
		change(folder) {
			set("tokenizer_config.json", { tokenizer_class: "EvilTokenizer" })(folder);
			write(folder, "tokenization_evil.py", "import os; os._exit(77)\n");
		},
	},
	{
		name: "a module that is named as one of the standard library",
		...HARMLESS,
		change: file("json.py", () => "import os; os._exit(77)\n"),
	},
	{
		name: "a custom generation script",
		...HARMLESS,
		change: file("custom_generate/generate.py", () => "import os; os._exit(77)\n"),
	},
	// Names and links
	{
		name: "a shard index that leads out of the repo",
		...REFUSED,
		short: true,
		change: index((names) => Object.fromEntries(names.map((name) => [name, "../../../../etc/passwd"]))),
	},
	{
		name: "a shard index with an absolute path",
		...REFUSED,
		change: index((names) => Object.fromEntries(names.map((name) => [name, "/etc/passwd"]))),
	},
	{
		name: "a shard index to a shard that is not there",
		...REFUSED,
		change: index((names) => Object.fromEntries(names.map((name) => [name, "model-00002-of-00002.safetensors"]))),
	},
	{
		name: "a shard index whose shards are no text",
		...REFUSED,
		change: index((names) => Object.fromEntries(names.map((name) => [name, { path: ["x"] }]))),
	},
	{
		name: "a shard index with names that are no names of a file",
		...REFUSED,
		change: index((names) => Object.fromEntries(names.map((name) => [name, "model\u0000.safetensors"]))),
	},
	{
		name: "a licence that is a link to a secret",
		...REFUSED,
		change: link("LICENSE", "/etc/passwd"),
	},
	{
		name: "weights that are a link to a device",
		...REFUSED,
		change: link("model.safetensors", "/dev/zero"),
	},
	{
		name: "a configuration that is a link to itself",
		...REFUSED,
		change: link("config.json", "config.json"),
	},
	// Headers of weights
	{
		name: "a header of 2^63 bytes",
		...REFUSED,
		short: true,
		change: file("model.safetensors", () => safetensors("{}", Buffer.alloc(64), 0x7fff_ffff_ffff_ffffn)),
	},
	{
		name: "a header of 2^64 - 8 bytes",
		...REFUSED,
		change: file("model.safetensors", () => safetensors("{}", Buffer.alloc(64), 0xffff_ffff_ffff_fff8n)),
	},
	{
		name: "a header of a gibibyte in a sparse file",
		...REFUSED,
		change(folder) {
			write(folder, "model.safetensors", safetensors("{", Buffer.alloc(0), BigInt(2 ** 30)));
			truncateSync(join(folder, "model.safetensors"), 2 ** 30 + 8);
		},
	},
	{
		name: "tensors that overlap",
		...REFUSED,
		short: true,
		change: header((tensors) => {
			const all = Object.values(tensors);
			const [one, other] = all;
			if (one !== undefined && other !== undefined) {
				other.data_offsets = [...one.data_offsets];
				other.shape = [...one.shape];
			}
		}),
	},
	{
		name: "a tensor that begins before the file",
		...REFUSED,
		change: firstTensor(({ data_offsets }) => ({ data_offsets: [-8, data_offsets[1] ?? 0] })),
	},
	{
		name: "a tensor that ends before it begins",
		...REFUSED,
		change: firstTensor(({ data_offsets }) => ({ data_offsets: data_offsets.toReversed() })),
	},
	{
		name: "a tensor that ends behind the file",
		...REFUSED,
		change: firstTensor((_, size) => ({ data_offsets: [0, size * 1000] })),
	},
	{
		name: "offsets that are no whole numbers",
		...REFUSED,
		change: firstTensor(() => ({ data_offsets: [0.5, 1e300] })),
	},
	{
		name: "a shape whose product passes 2^64",
		...REFUSED,
		change: firstTensor(() => ({ shape: [2 ** 33, 2 ** 33, 2 ** 33] })),
	},
	{
		name: "a shape of ten thousand dimensions",
		...REFUSED,
		change: firstTensor(() => ({ shape: Array.from({ length: 10_000 }, () => 1) })),
	},
	{
		name: "a shape with a negative side",
		...REFUSED,
		change: firstTensor(({ shape }) => ({ shape: shape.map((side) => -side) })),
	},
	{
		name: "a type that nobody knows",
		...REFUSED,
		change: firstTensor(() => ({ dtype: "F1024" })),
	},
	{
		name: "a tensor twice under one name",
		...REFUSED,
		short: true,
		change: header((tensors) => {
			const [name = "", tensor] = Object.entries(tensors)[0] ?? [];
			return `{${JSON.stringify(name)}:${JSON.stringify(tensor)},${JSON.stringify(tensors).slice(1)}`;
		}),
	},
	{
		name: "a header of a hundred thousand empty tensors",
		...REFUSED,
		change: header((tensors) => {
			const empty = { dtype: "F32", shape: [0], data_offsets: [0, 0] };
			return { ...Object.fromEntries(Array.from({ length: 100_000 }, (_, at) => [`empty.${at}`, empty])), ...tensors };
		}),
	},
	{
		name: "a hundred files of ten thousand empty tensors",
		...REFUSED,
		seconds: 60,
		mebibytes: 1024,
		change(folder) {
			const empty = { dtype: "F32", shape: [0], data_offsets: [0, 0] };
			const map: Json = {};
			for (let shard = 1; shard <= 100; shard++) {
				const name = `model-${String(shard).padStart(5, "0")}-of-00100.safetensors`;
				const tensors: Json = {};
				for (let at = 0; at < 10_000; at++) {
					tensors[`e.${shard}.${at}`] = empty;
					map[`e.${shard}.${at}`] = name;
				}
				write(folder, name, safetensors(JSON.stringify(tensors), Buffer.alloc(0)));
			}
			rmSync(join(folder, "model.safetensors"));
			write(folder, "model.safetensors.index.json", JSON.stringify({ metadata: {}, weight_map: map }));
		},
	},
	{
		name: "a header of brackets in brackets",
		...REFUSED,
		change: file("model.safetensors", () => safetensors(`{"a":${nested("[", "]", 200_000)}}`, Buffer.alloc(64))),
	},
	{
		name: "a header in UTF-16",
		...REFUSED,
		change(folder) {
			const { header: tensors, data } = weights(folder);
			write(folder, "model.safetensors", safetensors(Buffer.from(JSON.stringify(tensors), "utf16le"), data));
		},
	},
	{
		name: "names of tensors with NUL and escape sequences",
		...REFUSED,
		change: header((tensors) => {
			const renamed = Object.entries(tensors).map(([name, tensor]) => [`${name}\u0000\u001b[2J\u202e`, tensor]);
			return Object.fromEntries(renamed);
		}),
	},
	{ name: "a weight that is not a number", ...REFUSED, short: true, change: poison(0x7fc0) },
	{ name: "a weight that is infinite", ...REFUSED, change: poison(0x7f80) },
	// Configurations
	{
		name: "a configuration of brackets in brackets",
		...REFUSED,
		short: true,
		change: file("config.json", () => `{"architectures":${nested("[", "]", 500_000)}}`),
	},
	{
		name: "a configuration that is an array",
		...REFUSED,
		change: file("config.json", () => "[1,2,3]"),
	},
	{
		name: "a configuration in UTF-16",
		...REFUSED,
		change: (folder) =>
			write(
				folder,
				"config.json",
				Buffer.from(`\ufeff${readFileSync(join(folder, "config.json"), "utf8")}`, "utf16le"),
			),
	},
	{
		name: "a configuration of a hundred mebibytes",
		...REFUSED,
		change: file("config.json", () => `{"a":"${"x".repeat(100 * 2 ** 20)}"}`),
	},
	{
		name: "a million layers",
		...REFUSED,
		change: set("config.json", { num_hidden_layers: 1_000_000 }),
	},
	{
		name: "a hidden size of 2^40",
		...REFUSED,
		change: set("config.json", { hidden_size: 2 ** 40 }),
	},
	{
		name: "sizes of nothing",
		...REFUSED,
		change: set("config.json", { hidden_size: 0, num_attention_heads: 0 }),
	},
	{
		name: "a vocabulary of 2^31",
		...REFUSED,
		change: set("config.json", { vocab_size: 2 ** 31 }),
	},
	{
		name: "sizes that are text, lists and booleans",
		...REFUSED,
		change: set("config.json", { num_hidden_layers: ["1"], num_attention_heads: true, hidden_size: "128" }),
	},
	{
		name: "positions that are stretched 10^18 times",
		...REFUSED,
		change: set("config.json", {
			max_position_embeddings: 1e18,
			rope_parameters: { rope_type: "dynamic", factor: 1e18, rope_theta: 1e308 },
		}),
	},
	{
		name: "an activation by the path of a function",
		...REFUSED,
		change: set("config.json", { hidden_act: "os.system" }),
	},
	{
		name: "a type that would import a module",
		...REFUSED,
		change: set("config.json", { model_type: "../../evil", dtype: "__import__('os')" }),
	},
	{
		name: "a quantization that loads a module",
		...REFUSED,
		change: set("config.json", { quantization_config: { quant_method: "evil", modules_to_not_convert: ["x"] } }),
	},
	// Tokenizers
	{
		name: "a tokenizer whose replacements multiply",
		...REFUSED,
		short: true,
		change: tokenizer((document) => {
			const grow = Array.from({ length: 12 }, () => replace({ String: "e" }, "e".repeat(16)));
			document["normalizer"] = { type: "Sequence", normalizers: grow };
		}),
	},
	{
		name: "a tokenizer with a pattern that does not end",
		...REFUSED,
		change: tokenizer((document) => {
			document["pre_tokenizer"] = {
				type: "Split",
				pattern: { Regex: "(\\w+)+$" },
				behavior: "Isolated",
				invert: false,
			};
		}),
	},
	{
		name: "a tokenizer with a pattern of brackets in brackets",
		...REFUSED,
		change: tokenizer((document) => {
			document["normalizer"] = replace({ Regex: nested("(", ")", 6000) }, "x");
		}),
	},
	{
		name: "a tokenizer with a pattern that counts to a billion",
		...REFUSED,
		change: tokenizer((document) => {
			document["normalizer"] = replace({ Regex: "((a{1,1000}){1,1000}){1,1000}b" }, "x");
		}),
	},
	{
		name: "a tokenizer of a hundred thousand normalizers",
		...REFUSED,
		change: tokenizer((document) => {
			const many = Array.from({ length: 100_000 }, (_, at) => replace({ String: `x${at}` }, "y"));
			document["normalizer"] = { type: "Sequence", normalizers: many };
		}),
	},
	{
		name: "a tokenizer of sequences in sequences",
		...REFUSED,
		change: (folder) => {
			const text = readFileSync(join(folder, "tokenizer.json"), "utf8");
			const deep = `${'{"type":"Sequence","normalizers":['.repeat(20_000)}${"]}".repeat(20_000)}`;
			write(folder, "tokenizer.json", text.replace('"normalizer": null', `"normalizer": ${deep}`));
		},
	},
	{
		name: "a vocabulary of a million tokens that the model lacks",
		...REFUSED,
		change: tokenizer((document) => {
			const model = document["model"] as Json;
			const vocabulary = model["vocab"] as Json;
			for (let at = 0; at < 1_000_000; at++) vocabulary[`token ${at}`] = 1000 + at;
		}),
	},
	{
		name: "a token of ten million characters",
		...REFUSED,
		change: tokenizer((document) => {
			const tokens = document["added_tokens"] as Json[];
			tokens.push({ ...tokens[0], id: 2, content: "x".repeat(10_000_000), special: true });
		}),
	},
	{
		name: "numbers of tokens beyond 2^32",
		...REFUSED,
		change: tokenizer((document) => {
			const model = document["model"] as Json;
			model["vocab"] = { ...(model["vocab"] as Json), beyond: 2 ** 40 };
		}),
	},
	{
		name: "a chat template that loops for ever",
		...HARMLESS,
		short: true,
		change: set("tokenizer_config.json", {
			chat_template:
				"{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}x",
		}),
	},
	{
		name: "a chat template that takes all memory",
		...HARMLESS,
		change: set("tokenizer_config.json", { chat_template: "{{ 'x' * 100000000000 }}" }),
	},
	{
		name: "a chat template that doubles itself",
		...HARMLESS,
		change: set("tokenizer_config.json", {
			chat_template: `{% set a = 'xxxxxxxx' %}${"{% set a = a ~ a %}".repeat(60)}{{ a }}`,
		}),
	},
	{
		name: "a chat template that looks for the interpreter",
		...HARMLESS,
		change: set("tokenizer_config.json", {
			chat_template:
				"{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('exit 77') }}",
		}),
	},
	{
		name: "a chat template of brackets in brackets",
		...HARMLESS,
		change: set("tokenizer_config.json", { chat_template: `{{ ${nested("(", ")", 50_000)} }}` }),
	},
	// What lies beside
	{
		name: "front matter whose aliases multiply",
		...HARMLESS,
		short: true,
		change: file("README.md", () => {
			const lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"];
			for (let at = 1; at < 12; at++) {
				lines.push(`a${at}: &a${at} [${Array.from({ length: 9 }, () => `*a${at - 1}`).join(",")}]`);
			}
			return `---\n${lines.join("\n")}\n---\n`;
		}),
	},
	{
		name: "front matter of brackets in brackets",
		...HARMLESS,
		change: file("README.md", () => `---\nlicense: ${"[".repeat(50_000)}\n---\n`),
	},
	{
		name: "front matter that asks for an object",
		...HARMLESS,
		change: file("README.md", () => "---\nlicense: !!python/object/apply:os.system ['exit 77']\n---\n"),
	},
	{
		name: "a GGUF file with a text of 2^63 bytes",
		...HARMLESS,
		change: file("model.gguf", () =>
			Buffer.concat([Buffer.from("GGUF\u0003\u0000\u0000\u0000"), u64(1n), u64(1n), u64(2n ** 63n)]),
		),
	},
	{
		name: "an ONNX file of garbage",
		...HARMLESS,
		change: file("onnx/model.onnx", () => Buffer.alloc(1000, 0xff)),
	},
	{
		name: "archives that unpack to a gibibyte",
		...HARMLESS,
		change(folder) {
			const bomb = Buffer.alloc(2 ** 26);
			write(folder, "tokenizer.json.gz", gzipSync(bomb));
			write(folder, "model.npz", deflateRawSync(bomb));
		},
	},
	{
		name: "a generation configuration of the wrong types",
		...HARMLESS,
		change: set("generation_config.json", { eos_token_id: "x".repeat(1000), temperature: [], max_length: -1e308 }),
	},
	{
		name: "companions of a gibibyte",
		...REFUSED,
		change(folder) {
			write(folder, "vocab.txt", "x");
			truncateSync(join(folder, "vocab.txt"), 2 ** 30);
		},
	},
];

/** A folder for each of `sources`, below `below`. */
export function makeHostileSources(sources: readonly HostileSource[], below: string) {
	return sources.map((source, at) => {
		const folder = join(below, String(at));
		cpSync(TINY_SOURCE, folder, { recursive: true });
		source.change(folder);
		return { ...source, folder };
	});
}
