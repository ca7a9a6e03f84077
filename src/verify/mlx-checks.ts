import { z } from "zod";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { assertCheck } from "./manifest-checks.ts";
import { checkPackedLinears, storedGroup } from "./packed-linears.ts";
import { readJsonFile } from "./read-json-file.ts";
import { allFinite, type SafetensorsFile } from "./read-safetensors.ts";
import type { TensorInfo } from "./safetensors-header.ts";

const Settings = z.strictObject({ group_size: z.int(), bits: z.int(), mode: z.literal("affine") });
const Quantization = Settings.extend({ mode: z.enum(["affine", "nvfp4", "mxfp4"]) }).catchall(Settings);
const Config = z.looseObject({
	quantization: Quantization,
	quantization_config: Quantization,
	auto_map: z.undefined().optional(),
	// mlx-lm imports the file of that name.
	model_file: z.undefined().optional(),
});

const SCALES = ".scales";
/** Rounded to nearest by the container, apart from the linears that the manifest describes. */
const VOCABULARY = ["model.embed_tokens", "lm_head"];
const VOCABULARY_BITS = 8;
/** FP4: the group of each mode, and the byte of a scale that is no number, or none above 0. */
const FLOAT_MODES = { nvfp4: { group: 16, firstBad: 0x7f }, mxfp4: { group: 32, firstBad: 0xff } } as const;
const FLOAT_VOCABULARY_GROUP = 32;

/** `config.json` and the packed tensors against the recipe and against each other. */
export async function checkMlx(directory: string, manifest: Manifest, recipe: Recipe): Promise<string> {
	const { quantization, quantization_config: forTheHub } = await readJsonFile(directory, "config.json", Config);
	const { bits, name } = recipe.name;
	const { group_size, bits: statedBits, mode, ...own } = quantization;
	const float = mode === "affine" ? null : FLOAT_MODES[mode];
	assertCheck(
		(float === null) === (recipe.group !== null) && (float === null || name === `mlx:${mode}`),
		`config.json says the mode ${mode}, the recipe is ${recipe.canonical}`,
	);
	const group = float?.group ?? storedGroup(manifest, recipe);
	const vocabularyGroup = float === null ? group : FLOAT_VOCABULARY_GROUP;
	assertCheck(
		statedBits === bits && group_size === group,
		`config.json says ${statedBits} bits and groups of ${group_size}, the recipe ${bits} and ${group}`,
	);
	assertCheck(
		JSON.stringify(forTheHub) === JSON.stringify(quantization),
		"config.json says one thing in quantization and another in quantization_config",
	);
	for (const [name, settings] of Object.entries(own)) {
		assertCheck(
			VOCABULARY.includes(name) && settings.bits === VOCABULARY_BITS && settings.group_size === vocabularyGroup,
			`config.json has settings of its own for ${name}, which are not those of embedding and output layer`,
		);
	}
	const vocabulary = new Set(Object.keys(own));
	const shapes = new Map(manifest.layers.map(({ name, shape }) => [name, shape]));
	const packed = await checkPackedLinears(
		{ directory, manifest, suffix: SCALES, besides: vocabulary },
		(file, scales, layer) => {
			const isVocabulary = vocabulary.has(layer);
			return checkGroups(file, scales, layer, {
				bits: isVocabulary ? VOCABULARY_BITS : bits,
				group: isVocabulary ? vocabularyGroup : group,
				shape: shapes.get(layer) ?? null,
				firstBad: isVocabulary ? null : (float?.firstBad ?? null),
			});
		},
		// mlx-lm takes what has no scales for a matrix as it is: packed words there would be read as numbers.
		({ name, dtype }) => {
			const layer = name.replace(/\.weight$/, "");
			const isPacked = layer !== name && (shapes.has(layer) || vocabulary.has(layer));
			assertCheck(isPacked || ["F16", "BF16", "F32"].includes(dtype), `${name} is stored as ${dtype}`);
		},
	);
	return `MLX: ${packed} linears of ${mode === "affine" ? `${bits} bits` : mode} in groups of ${group}${vocabulary.size === 0 ? "" : `, ${[...vocabulary].join(" and ")} of ${VOCABULARY_BITS}`}, scales and biases finite, shapes agree`;
}

async function checkGroups(
	file: SafetensorsFile,
	scales: TensorInfo,
	layer: string,
	wanted: {
		readonly bits: number;
		readonly group: number;
		readonly shape: readonly number[] | null;
		/** Of scales of a byte, of which this is the first that is no positive number; `null`: 16-bit scales and biases. */
		readonly firstBad: number | null;
	},
): Promise<void> {
	const { bits, group, shape, firstBad } = wanted;
	const [weight, biases] = ["weight", "biases"].map((kind) => file.header.tensors.get(`${layer}.${kind}`));
	assertCheck(weight !== undefined, `${layer} lacks its weight or its biases`);
	assertCheck((biases === undefined) === (firstBad !== null), `${layer} lacks its weight or its biases`);
	const [rows = 0, groups = 0] = scales.shape;
	const columns = groups * group;
	if (shape !== null) {
		assertCheck(
			shape[0] === rows && shape[1] === columns,
			`${layer} holds ${rows} × ${columns} weights, the manifest describes ${shape.join(" × ")}`,
		);
	}
	assertCheck(
		weight.dtype === "U32" && weight.shape.join() === `${rows},${(columns * bits) / 32}` && rows > 0 && groups > 0,
		`${weight.name} is ${weight.dtype} ${weight.shape.join(" × ")}, which ${rows} × ${columns} weights of ${bits} bits do not give`,
	);
	if (firstBad !== null) {
		assertCheck(scales.dtype === "U8", `${scales.name} is ${scales.dtype}, not U8`);
		const bytes = await file.read(scales);
		assertCheck(
			bytes.every((byte) => byte < firstBad),
			`${scales.name} holds a value that is no positive number`,
		);
	}
	for (const tensor of firstBad === null && biases !== undefined ? [scales, biases] : []) {
		assertCheck(
			["F16", "BF16"].includes(tensor.dtype) &&
				tensor.dtype === scales.dtype &&
				tensor.shape.join() === `${rows},${groups}`,
			`${tensor.name} is ${tensor.dtype} ${tensor.shape.join(" × ")}, which groups of ${group} do not give`,
		);
		assertCheck(allFinite(await file.read(tensor), tensor.dtype), `${tensor.name} holds a value that is not finite`);
	}
}
