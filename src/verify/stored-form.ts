import { z } from "zod";
import { quoted } from "./refusals.ts";
import type { TensorInfo } from "./safetensors-header.ts";
import type { SourceConfig } from "./source-config.ts";

/**
 * Originals that are released quantized, as the runner reads them (`model/stored_form.py`): float8 in blocks (DeepSeek,
 * Qwen), experts in mxfp4 (gpt-oss). `block`: rows and columns that share a scale; `null`: a whole matrix does.
 */
export type StoredForm =
	| { readonly name: "float8"; readonly block: readonly [number, number] | null }
	| { readonly name: "mxfp4" };

const blockSize = z.int().min(1).max(65_536);
const Settings = z.discriminatedUnion("quant_method", [
	z.looseObject({
		quant_method: z.literal("fp8"),
		fmt: z.literal("e4m3").optional(),
		weight_block_size: z.tuple([blockSize, blockSize]).nullable().default([128, 128]),
	}),
	z.looseObject({ quant_method: z.literal("mxfp4") }),
]);
const Method = z.looseObject({ quant_method: z.string() });

/** How the weights are stored; `null`: plain. `quantizedBy`: in a form that is no original's, by that method if told. */
export function storedFormOf(
	config: SourceConfig,
): { readonly form: StoredForm | null } | { readonly quantizedBy: string | null } {
	const nested = Object.entries(config).find(
		([name, value]) =>
			name.endsWith("_config") && z.looseObject({ quantization_config: z.looseObject({}) }).safeParse(value).success,
	);
	if (nested !== undefined) return { quantizedBy: nested[0] };
	if (config.quantization_config === undefined || config.quantization_config === null) return { form: null };
	const parsed = Settings.safeParse(config.quantization_config);
	if (!parsed.success) {
		const method = Method.safeParse(config.quantization_config);
		return { quantizedBy: method.success ? method.data.quant_method : null };
	}
	const settings = parsed.data;
	switch (settings.quant_method) {
		case "fp8":
			return { form: { name: "float8", block: settings.weight_block_size } };
		case "mxfp4":
			return { form: { name: "mxfp4" } };
	}
}

type Tensors = ReadonlyMap<string, TensorInfo>;
type Decoded =
	| { readonly ok: true; readonly tensors: Tensors; readonly bytes: number }
	| { readonly ok: false; readonly message: string };

class Unsound extends Error {}

const SCALE_TYPES: ReadonlySet<string> = new Set(["F32", "F16", "BF16", "F8_E8M0"]);
const FLOATING: ReadonlySet<string> = new Set(["F32", "F16", "BF16", "F64"]);
const MXFP4_BLOCK_BYTES = 16;

/** The weights that `stored` stands for, and what they take in 16 bits; or which of them does not add up. */
export function decodedTensors(form: StoredForm | null, stored: Tensors): Decoded {
	try {
		const tensors = form === null ? plain(stored) : decoded(form, stored);
		let bytes = 0;
		for (const { start, end } of tensors.values()) bytes += end - start;
		return { ok: true, tensors, bytes };
	} catch (error) {
		if (error instanceof Unsound) return { ok: false, message: error.message };
		throw error;
	}
}

/** Codes of some kind, and no number that a model computes with: what is no matrix may count something. */
function isForeign(dtype: string, shape: readonly number[]): boolean {
	return dtype.startsWith("F8_") || (!FLOATING.has(dtype) && shape.length >= 2);
}

function plain(stored: Tensors): Tensors {
	for (const { name, dtype, shape } of stored.values()) {
		if (isForeign(dtype, shape)) {
			throw new Unsound(`${quoted(name)} is stored as ${dtype}: these weights are quantized already.`);
		}
	}
	return stored;
}

function decoded(form: StoredForm, stored: Tensors): Tensors {
	const tensors = new Map<string, TensorInfo>();
	const used = new Set<string>();
	for (const tensor of stored.values()) {
		const found = form.name === "float8" ? float8Weight(form.block, tensor, stored) : mxfp4Weight(tensor, stored);
		if (found === null) continue;
		used.add(tensor.name).add(found.scale);
		const { name, shape } = found;
		const elements = shape.reduce((product, size) => product * size, 1);
		tensors.set(name, { name, dtype: "BF16", shape, start: 0, end: 2 * elements });
	}
	if (used.size === 0) throw new Unsound(`config.json says that weights are stored as ${form.name}, and none is.`);
	for (const tensor of stored.values()) {
		const { name, dtype, shape } = tensor;
		if (used.has(name)) continue;
		if (/(?:_scale_inv|_blocks|_scales)$/.test(name)) {
			throw new Unsound(`${quoted(name)} belongs to no ${form.name} weight of the checkpoint.`);
		}
		if (form.name === "float8" && name.endsWith("activation_scale")) continue;
		if (isForeign(dtype, shape)) {
			throw new Unsound(`${quoted(name)} is stored as ${dtype}, which is not ${form.name}.`);
		}
		if (tensors.has(name)) throw new Unsound(`${quoted(name)} is there twice, in ${form.name} and plain.`);
		tensors.set(name, tensor);
	}
	return tensors;
}

type Weight = { readonly name: string; readonly shape: readonly number[]; readonly scale: string };

function float8Weight(block: readonly [number, number] | null, tensor: TensorInfo, stored: Tensors): Weight | null {
	const { name, dtype, shape } = tensor;
	if (dtype !== "F8_E4M3") return null;
	const label = quoted(name);
	const scale = stored.get(`${name}_scale_inv`);
	if (scale === undefined || !SCALE_TYPES.has(scale.dtype)) {
		throw new Unsound(`${label} is stored as ${dtype}, and has no scales (_scale_inv) beside it.`);
	}
	const [rows, columns] = shape.slice(-2);
	if (rows === undefined || columns === undefined) throw new Unsound(`${label} is stored as ${dtype}, and no matrix.`);
	const wanted =
		block === null ? [] : [...shape.slice(0, -2), Math.ceil(rows / block[0]), Math.ceil(columns / block[1])];
	const fits = block === null ? scale.shape.every((size) => size === 1) : scale.shape.join(" ") === wanted.join(" ");
	if (!fits) {
		const blocks = block === null ? "one block" : `blocks of ${block[0]} × ${block[1]}`;
		throw new Unsound(
			`${label} of ${shape.join(" × ")} has scales of ${scale.shape.join(" × ")}, which ${blocks} do not give.`,
		);
	}
	return { name, shape, scale: scale.name };
}

function mxfp4Weight(tensor: TensorInfo, stored: Tensors): Weight | null {
	const { name, dtype, shape } = tensor;
	if (!name.endsWith("_blocks") || dtype !== "U8") return null;
	const label = quoted(name);
	const weight = name.slice(0, -"_blocks".length);
	const scale = stored.get(`${weight}_scales`);
	if (scale === undefined || scale.dtype !== "U8") {
		throw new Unsound(`${label} holds mxfp4 codes, and has no scales (_scales) beside it.`);
	}
	const [experts, rows, groups, bytes] = shape;
	if (
		shape.length !== 4 ||
		experts === undefined ||
		rows === undefined ||
		groups === undefined ||
		bytes !== MXFP4_BLOCK_BYTES ||
		scale.shape.join(" ") !== shape.slice(0, 3).join(" ")
	) {
		throw new Unsound(
			`${label} of ${shape.join(" × ")} with scales of ${scale.shape.join(" × ")} is not transformers' mxfp4.`,
		);
	}
	return { name: weight, shape: [experts, groups * 2 * MXFP4_BLOCK_BYTES, rows], scale: scale.name };
}
