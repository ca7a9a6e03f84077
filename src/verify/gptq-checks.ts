import { z } from "zod";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { assertCheck } from "./manifest-checks.ts";
import { checkPackedLinears, storedGroup } from "./packed-linears.ts";
import { readJsonFile } from "./read-json-file.ts";
import { allFinite, type SafetensorsFile } from "./read-safetensors.ts";
import type { TensorInfo } from "./safetensors-header.ts";

const QuantizationConfig = z.looseObject({
	quant_method: z.literal("gptq"),
	bits: z.int(),
	group_size: z.int(),
	desc_act: z.literal(false),
	sym: z.literal(true),
	// Kernels of v1 add 1 to the stored zero points; a v2 file would decode to other weights there.
	checkpoint_format: z.literal("gptq"),
	pack_dtype: z.literal("int32").optional(),
	dynamic: z.record(z.string(), z.looseObject({})).optional(),
});
const Config = z.looseObject({ quantization_config: QuantizationConfig, auto_map: z.undefined().optional() });

const PACKED = ".qweight";

/** `config.json`, `quantize_config.json` and the packed tensors against the recipe and against each other. */
export async function checkGptq(directory: string, manifest: Manifest, recipe: Recipe): Promise<string> {
	const group = storedGroup(manifest, recipe);
	const { bits } = recipe.name;
	const { quantization_config: settings } = await readJsonFile(directory, "config.json", Config);
	const own = await readJsonFile(directory, "quantize_config.json", QuantizationConfig);
	for (const [file, stated] of [
		["config.json", settings],
		["quantize_config.json", own],
	] as const) {
		assertCheck(
			stated.bits === bits && stated.group_size === group,
			`${file} says ${stated.bits} bits and groups of ${stated.group_size}, the recipe ${bits} and ${group}`,
		);
	}
	const packed = await checkPackedLinears({ directory, manifest, suffix: PACKED }, (file, tensor, layer) =>
		checkLinear(file, tensor, layer, bits, group),
	);
	return `GPTQ v1: ${packed} linears of ${bits} bits in groups of ${group}, scales finite, zero points in the middle, shapes agree`;
}

async function checkLinear(
	file: SafetensorsFile,
	packed: TensorInfo,
	layer: string,
	bits: number,
	group: number,
): Promise<void> {
	const { tensors } = file.header;
	const [zeros, scales, index] = ["qzeros", "scales", "g_idx"].map((kind) => tensors.get(`${layer}.${kind}`));
	assertCheck(
		zeros !== undefined && scales !== undefined && index !== undefined,
		`${layer} lacks its zero points, its scales or its g_idx`,
	);
	const columns = index.shape[0] ?? 0;
	const rows = scales.shape[1] ?? 0;
	const groups = columns / group;
	const expected: readonly (readonly [TensorInfo, string, string])[] = [
		[packed, "I32", `${(columns * bits) / 32},${rows}`],
		[zeros, "I32", `${groups},${(rows * bits) / 32}`],
		[scales, "F16", `${groups},${rows}`],
		[index, "I32", `${columns}`],
	];
	for (const [tensor, dtype, shape] of expected) {
		assertCheck(
			tensor.dtype === dtype && tensor.shape.join() === shape && !tensor.shape.includes(0),
			`${tensor.name} is ${tensor.dtype} ${tensor.shape.join(" × ")}, which ${bits} bits in groups of ${group} do not give`,
		);
	}
	assertCheck(allFinite(await file.read(scales), scales.dtype), `${scales.name} holds a value that is not finite`);
	const order = numbers(await file.read(index));
	assertCheck(
		order.every((place, column) => place === Math.floor(column / group)),
		`${index.name} is not the plain order of the inputs`,
	);
	assertCheck(
		middleOnly(numbers(await file.read(zeros)), bits, zeros.shape[1] ?? 0),
		`${zeros.name} holds a zero point that is not in the middle`,
	);
}

function numbers(bytes: Uint8Array): Int32Array {
	return new Int32Array(bytes.slice().buffer);
}

/** Whether every field of each row is `2^(bits−1) − 1`, packed densely from the lowest bit on. */
function middleOnly(words: Int32Array, bits: number, wordsOfRow: number): boolean {
	// 32 fields fill `bits` words whatever the width.
	const field = (1n << BigInt(bits - 1)) - 1n;
	let stream = 0n;
	for (let place = 0; place < 32; place++) stream |= field << BigInt(place * bits);
	const pattern = Array.from({ length: bits }, (_, word) => Number(BigInt.asIntN(32, stream >> BigInt(word * 32))));
	return words.every((word, place) => word === pattern[(place % wordsOfRow) % bits]);
}
