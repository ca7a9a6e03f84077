import { z } from "zod";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import {
	checkSharedDividers,
	FLOAT_FORMS,
	type FloatName,
	FloatWeights,
	floatCheck,
	isFloatName,
} from "./compressed-tensors-floats.ts";
import { assertCheck } from "./manifest-checks.ts";
import { checkPackedLinears, storedGroup } from "./packed-linears.ts";
import { readJsonFile } from "./read-json-file.ts";
import { allFinite, type SafetensorsFile } from "./read-safetensors.ts";
import type { TensorInfo } from "./safetensors-header.ts";

const IntegerWeights = z.looseObject({
	num_bits: z.int(),
	type: z.literal("int"),
	symmetric: z.boolean(),
	strategy: z.literal("group"),
	group_size: z.int().min(1),
});

function configOf<Weights extends z.ZodType>(format: string, weights: Weights) {
	const QuantizationConfig = z.looseObject({
		quant_method: z.literal("compressed-tensors"),
		format: z.literal(format),
		quantization_status: z.literal("compressed"),
		ignore: z.array(z.string()).optional(),
		config_groups: z.record(
			z.string(),
			z.looseObject({
				targets: z.array(z.string()).min(1),
				format: z.literal(format).optional(),
				weights,
				input_activations: z.null().optional(),
			}),
		),
	});
	return z.looseObject({ quantization_config: QuantizationConfig, auto_map: z.undefined().optional() });
}

const PACKED = ".weight_packed";

/** `config.json` and the packed tensors against the recipe and against each other. */
export async function checkCompressedTensors(directory: string, manifest: Manifest, recipe: Recipe): Promise<string> {
	const { name } = recipe.name;
	return isFloatName(name) ? checkFloats(directory, manifest, name) : checkIntegers(directory, manifest, recipe);
}

async function checkFloats(directory: string, manifest: Manifest, name: FloatName): Promise<string> {
	const { format, strategy, group, packed: suffix } = FLOAT_FORMS[name];
	const config = await readJsonFile(directory, "config.json", configOf(format, FloatWeights));
	const bits = name === "fp8" ? 8 : 4;
	for (const [key, { weights }] of Object.entries(config.quantization_config.config_groups)) {
		assertCheck(
			weights.num_bits === bits && weights.strategy === strategy && weights.group_size === group,
			`config.json says ${weights.num_bits} bits, ${weights.strategy}, groups of ${weights.group_size} in ${key}; ${name} is ${bits}, ${strategy}, ${group}`,
		);
	}
	const shapes = new Map(manifest.layers.map((layer) => [layer.name, layer.shape]));
	const dividers = new Map<string, number>();
	const packed = await checkPackedLinears({ directory, manifest, suffix }, floatCheck(name, shapes, dividers));
	checkSharedDividers(dividers);
	return `compressed-tensors: ${packed} linears of ${name}, codes and scales are numbers, shapes agree`;
}

async function checkIntegers(directory: string, manifest: Manifest, recipe: Recipe): Promise<string> {
	const config = await readJsonFile(directory, "config.json", configOf("pack-quantized", IntegerWeights));
	const group = storedGroup(manifest, recipe);
	const { bits } = recipe.name;
	for (const [name, scheme] of Object.entries(config.quantization_config.config_groups)) {
		assertCheck(
			scheme.weights.num_bits === bits && scheme.weights.group_size === group,
			`config.json says ${scheme.weights.num_bits} bits and groups of ${scheme.weights.group_size} in ${name}, the recipe ${bits} and ${group}`,
		);
		assertCheck(
			scheme.weights.symmetric === !recipe.zero,
			`config.json says that ${name} is ${scheme.weights.symmetric ? "symmetric" : "asymmetric"}, the recipe says the opposite`,
		);
	}
	const packed = await checkPackedLinears({ directory, manifest, suffix: PACKED }, (file, tensor, layer) =>
		checkLinear(file, tensor, layer, { bits, group, zero: recipe.zero }),
	);
	return `compressed-tensors: ${packed} linears of ${bits} bits in groups of ${group}, scales finite, shapes agree`;
}

async function checkLinear(
	file: SafetensorsFile,
	packed: TensorInfo,
	layer: string,
	wanted: { readonly bits: number; readonly group: number; readonly zero: boolean },
): Promise<void> {
	const { bits, group, zero } = wanted;
	const scale = file.header.tensors.get(`${layer}.weight_scale`);
	const shape = file.header.tensors.get(`${layer}.weight_shape`);
	assertCheck(scale !== undefined && shape !== undefined, `${layer} lacks its scale or its shape`);
	assertCheck(packed.dtype === "I32", `${packed.name} is stored as ${packed.dtype}, not I32`);
	assertCheck(shape.dtype === "I64" && shape.shape.join() === "2", `${shape.name} is not two 64-bit numbers`);
	const bytes = await file.read(shape);
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const rows = Number(view.getBigInt64(0, true));
	const columns = Number(view.getBigInt64(8, true));
	assertCheck(
		packed.shape.length === 2 && packed.shape[0] === rows && packed.shape[1] === Math.ceil((columns * bits) / 32),
		`${packed.name} has the shape ${packed.shape.join(" × ")}, which a ${rows} × ${columns} weight of ${bits} bits does not give`,
	);
	assertCheck(
		scale.shape.length === 2 && scale.shape[0] === rows && scale.shape[1] === Math.ceil(columns / group),
		`${scale.name} has the shape ${scale.shape.join(" × ")}, which groups of ${group} do not give`,
	);
	const points = file.header.tensors.get(`${layer}.weight_zero_point`);
	if (zero) {
		assertCheck(points !== undefined && points.dtype === "I32", `${layer} lacks its zero points`);
		assertCheck(
			points.shape.join() === `${Math.ceil((rows * bits) / 32)},${Math.ceil(columns / group)}`,
			`${points.name} has the shape ${points.shape.join(" × ")}, which ${rows} rows in groups of ${group} do not give`,
		);
	} else assertCheck(points === undefined, `${layer} has zero points, the recipe has none`);
	assertCheck(["F16", "BF16", "F32"].includes(scale.dtype), `${scale.name} is stored as ${scale.dtype}`);
	assertCheck(allFinite(await file.read(scale), scale.dtype), `${scale.name} holds a value that is not finite`);
}
