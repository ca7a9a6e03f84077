import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";

/** A model's sizes, as GGUF counts them. */
export type HollowModel = {
	readonly architecture: "llama" | "gemma3";
	readonly vocabulary: number;
	readonly hidden: number;
	readonly layers: number;
	readonly feedForward: number;
	readonly heads: number;
	readonly keyValueHeads: number;
	readonly headWidth: number;
	readonly window?: number;
};

const F32 = 0;
const F16 = 1;
const ALIGNMENT = 32;
const SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"];

function u32(value: number): Buffer {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32LE(value);
	return bytes;
}

function u64(value: number): Buffer {
	const bytes = Buffer.alloc(8);
	bytes.writeBigUInt64LE(BigInt(value));
	return bytes;
}

function f32(value: number): Buffer {
	const bytes = Buffer.alloc(4);
	bytes.writeFloatLE(value);
	return bytes;
}

function text(value: string): Buffer {
	return Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
}

/** Header entries of a SentencePiece vocabulary that is nothing but names. */
function vocabularyEntries(size: number): Buffer[] {
	const ids = Array.from({ length: size }, (_, id) => id);
	const nameOf = (id: number): string =>
		SPECIAL_TOKENS[id] ?? (id < 259 ? `<0x${(id - 3).toString(16).toUpperCase().padStart(2, "0")}>` : `t${id}`);
	const typeOf = (id: number): number => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1);
	const list = (key: string, type: number, items: readonly Buffer[]): Buffer =>
		Buffer.concat([text(key), u32(9), u32(type), u64(items.length), ...items]);
	return [
		Buffer.concat([text("tokenizer.ggml.model"), u32(8), text("llama")]),
		list(
			"tokenizer.ggml.tokens",
			8,
			ids.map((id) => text(nameOf(id))),
		),
		list(
			"tokenizer.ggml.scores",
			6,
			ids.map((id) => f32(-id)),
		),
		list(
			"tokenizer.ggml.token_type",
			5,
			ids.map((id) => u32(typeOf(id))),
		),
	];
}

function headerEntries(model: HollowModel): Buffer[] {
	const { architecture } = model;
	const number = (key: string, value: number): Buffer =>
		Buffer.concat([text(`${architecture}.${key}`), u32(4), u32(value)]);
	return [
		Buffer.concat([text("general.architecture"), u32(8), text(architecture)]),
		number("context_length", 131_072),
		number("embedding_length", model.hidden),
		number("block_count", model.layers),
		number("feed_forward_length", model.feedForward),
		number("attention.head_count", model.heads),
		number("attention.head_count_kv", model.keyValueHeads),
		number("attention.key_length", model.headWidth),
		number("attention.value_length", model.headWidth),
		number("rope.dimension_count", model.headWidth),
		...(model.window === undefined ? [] : [number("attention.sliding_window", model.window)]),
		Buffer.concat([text(`${architecture}.attention.layer_norm_rms_epsilon`), u32(6), f32(1e-6)]),
		...vocabularyEntries(model.vocabulary),
	];
}

type Tensor = { readonly name: string; readonly type: number; readonly shape: readonly number[] };

function tensorsOf(model: HollowModel): Tensor[] {
	const { hidden, feedForward, headWidth, keyValueHeads, heads } = model;
	const tensors: Tensor[] = [
		{ name: "token_embd", type: F16, shape: [hidden, model.vocabulary] },
		{ name: "output_norm", type: F32, shape: [hidden] },
	];
	for (let layer = 0; layer < model.layers; layer++) {
		const add = (name: string, type: number, ...shape: readonly number[]): void => {
			tensors.push({ name: `blk.${layer}.${name}`, type, shape });
		};
		add("attn_norm", F32, hidden);
		add("attn_q", F16, hidden, heads * headWidth);
		add("attn_k", F16, hidden, keyValueHeads * headWidth);
		add("attn_v", F16, hidden, keyValueHeads * headWidth);
		add("attn_output", F16, heads * headWidth, hidden);
		add("ffn_norm", F32, hidden);
		add("ffn_gate", F16, hidden, feedForward);
		add("ffn_up", F16, hidden, feedForward);
		add("ffn_down", F16, feedForward, hidden);
		if (model.architecture === "gemma3") {
			add("attn_q_norm", F32, headWidth);
			add("attn_k_norm", F32, headWidth);
			add("post_attention_norm", F32, hidden);
			add("post_ffw_norm", F32, hidden);
		}
	}
	return tensors;
}

/**
 * Writes a GGUF file that an engine opens as it would one of that model, and whose weights are all zero: a hole in the
 * file, so that it takes no room on the disk. Gives the file's bytes.
 */
export function writeHollowGguf(path: string, model: HollowModel): number {
	let end = 0;
	const tensors = tensorsOf(model).map(({ name, type, shape }) => {
		const start = end;
		const bytes = shape.reduce((product, width) => product * width, type === F16 ? 2 : 4);
		end += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
		return Buffer.concat([text(`${name}.weight`), u32(shape.length), ...shape.map(u64), u32(type), u64(start)]);
	});
	const entries = headerEntries(model);
	const header = Buffer.concat([
		Buffer.from("GGUF"),
		u32(3),
		u64(tensors.length),
		u64(entries.length),
		...entries,
		...tensors,
	]);
	const size = Math.ceil(header.length / ALIGNMENT) * ALIGNMENT + end;
	const file = openSync(path, "w");
	try {
		writeSync(file, header);
		ftruncateSync(file, size);
	} finally {
		closeSync(file);
	}
	return size;
}
