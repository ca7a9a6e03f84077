import { lstat, open } from "node:fs/promises";
import { join } from "node:path";
import { GGMLQuantizationType, gguf, parseGgufShardFilename } from "@huggingface/gguf";
import { byteSizeText } from "../protocol/byte-size.ts";
import { isImportance, ownBytes, ownFiles } from "../protocol/importance-file.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { RECIPES } from "../protocol/recipe-table.ts";
import { assertCheck, CheckFailure } from "./manifest-checks.ts";

/** Weights in one block, and bytes of that block. */
const BLOCKS: ReadonlyMap<number, readonly [weights: number, bytes: number]> = new Map([
	[GGMLQuantizationType.F32, [1, 4]],
	[GGMLQuantizationType.F16, [1, 2]],
	[GGMLQuantizationType.BF16, [1, 2]],
	[GGMLQuantizationType.Q4_0, [32, 18]],
	[GGMLQuantizationType.Q4_1, [32, 20]],
	[GGMLQuantizationType.Q5_0, [32, 22]],
	[GGMLQuantizationType.Q5_1, [32, 24]],
	[GGMLQuantizationType.Q8_0, [32, 34]],
	[GGMLQuantizationType.Q2_K, [256, 84]],
	[GGMLQuantizationType.Q3_K, [256, 110]],
	[GGMLQuantizationType.Q4_K, [256, 144]],
	[GGMLQuantizationType.Q5_K, [256, 176]],
	[GGMLQuantizationType.Q6_K, [256, 210]],
	[GGMLQuantizationType.IQ2_XXS, [256, 66]],
	[GGMLQuantizationType.IQ2_XS, [256, 74]],
	[GGMLQuantizationType.IQ2_S, [256, 82]],
	[GGMLQuantizationType.IQ3_XXS, [256, 98]],
	[GGMLQuantizationType.IQ3_S, [256, 110]],
	[GGMLQuantizationType.IQ4_NL, [32, 18]],
	[GGMLQuantizationType.IQ4_XS, [256, 136]],
]);

/** The types of linears, by the names that manifests give them. */
const TYPES: ReadonlyMap<string, GGMLQuantizationType> = new Map([
	["q4_0", GGMLQuantizationType.Q4_0],
	["q8_0", GGMLQuantizationType.Q8_0],
	["q4_1", GGMLQuantizationType.Q4_1],
	["q5_0", GGMLQuantizationType.Q5_0],
	["q5_1", GGMLQuantizationType.Q5_1],
	["iq2_xxs", GGMLQuantizationType.IQ2_XXS],
	["iq2_xs", GGMLQuantizationType.IQ2_XS],
	["iq2_s", GGMLQuantizationType.IQ2_S],
	["iq3_xxs", GGMLQuantizationType.IQ3_XXS],
	["iq3_s", GGMLQuantizationType.IQ3_S],
	["iq4_nl", GGMLQuantizationType.IQ4_NL],
	["iq4_xs", GGMLQuantizationType.IQ4_XS],
	["q2_k", GGMLQuantizationType.Q2_K],
	["q3_k", GGMLQuantizationType.Q3_K],
	["q4_k", GGMLQuantizationType.Q4_K],
	["q5_k", GGMLQuantizationType.Q5_K],
	["q6_k", GGMLQuantizationType.Q6_K],
	// As earlier versions called them.
	["symmetric-4-g32", GGMLQuantizationType.Q4_0],
	["symmetric-5-g32", GGMLQuantizationType.Q5_0],
	["symmetric-8-g32", GGMLQuantizationType.Q8_0],
]);

/** What llama-quantize gives the attention of models with eight experts, and the values of those with 80 blocks. */
const TYPES_OF_LARGE_MODELS = ["q5_k", "q8_0"] as const;

/** What stands in for a type where a row is no whole number of its blocks; an earlier version's choice comes last. */
const FALLBACKS: ReadonlyMap<GGMLQuantizationType, readonly GGMLQuantizationType[]> = new Map([
	[GGMLQuantizationType.Q2_K, [GGMLQuantizationType.Q4_0]],
	[GGMLQuantizationType.Q3_K, [GGMLQuantizationType.Q4_0]],
	[GGMLQuantizationType.IQ2_XXS, [GGMLQuantizationType.IQ4_NL]],
	[GGMLQuantizationType.IQ2_XS, [GGMLQuantizationType.IQ4_NL]],
	[GGMLQuantizationType.IQ2_S, [GGMLQuantizationType.IQ4_NL]],
	[GGMLQuantizationType.IQ3_XXS, [GGMLQuantizationType.IQ4_NL]],
	[GGMLQuantizationType.IQ3_S, [GGMLQuantizationType.IQ4_NL]],
	[GGMLQuantizationType.IQ4_XS, [GGMLQuantizationType.IQ4_NL]],
	[GGMLQuantizationType.Q4_K, [GGMLQuantizationType.Q5_0]],
	[GGMLQuantizationType.Q5_K, [GGMLQuantizationType.Q5_1, GGMLQuantizationType.Q5_0]],
	[GGMLQuantizationType.Q6_K, [GGMLQuantizationType.Q8_0]],
]);

const DEFAULT_ALIGNMENT = 32;
/** No linears that a manifest describes; they have types of their own. */
const VOCABULARY = new Set(["token_embd.weight", "per_layer_token_embd.weight", "output.weight"]);
const PLAIN: ReadonlySet<GGMLQuantizationType> = new Set([
	GGMLQuantizationType.F32,
	GGMLQuantizationType.F16,
	GGMLQuantizationType.BF16,
]);

/** The GGUF file, or its parts, against the recipe and their own headers. Returns what was seen, for the job page. */
export async function checkGguf(directory: string, manifest: Manifest, recipe: Recipe): Promise<string> {
	const paths = ownFiles(manifest)
		.map((file) => file.path)
		.filter((path) => path.endsWith(".gguf"));
	const [first] = paths.toSorted();
	assertCheck(first !== undefined, "there is no .gguf file");
	const parts = paths.toSorted().map((path) => parseGgufShardFilename(path));
	const whole = parts.every(
		(part, index) =>
			part !== null &&
			part.prefix === parts[0]?.prefix &&
			Number(part.shard) === index + 1 &&
			Number(part.total) === parts.length,
	);
	assertCheck(paths.length === 1 || whole, "the .gguf files are not the parts of one model");
	const names = new Set<string>();
	const quantized: GgufLinear[] = [];
	let architecture = "";
	for (const path of paths.toSorted()) {
		const { fields, linears } = await checkFile(join(directory, path), path, names);
		quantized.push(...linears);
		if (path !== first) continue;
		architecture = String(fields.get("general.architecture"));
		assertCheck(/^[a-z0-9._-]+$/.test(architecture), `${path} has the architecture ${JSON.stringify(architecture)}`);
		const vocabulary = fields.get("tokenizer.ggml.tokens");
		assertCheck(Array.isArray(vocabulary) && vocabulary.length > 0, `${path} holds no vocabulary`);
	}
	const described = describedTypes(manifest);
	const counted = checkTypes(first, quantized, described);
	if (recipe.name.name === RECIPES.mixed.name) checkBudget(first, counted.average, manifest, recipe);
	else checkNamedTypes(manifest, described, recipe);
	const importance = await checkImportance(directory, manifest);
	return `GGUF ${architecture}: ${names.size} tensors fit the file, ${counted.text}${importance}`;
}

type GgufLinear = { readonly row: number; readonly elements: number; readonly type: GGMLQuantizationType };

function describedTypes(manifest: Manifest): readonly GgufLinear[] {
	return manifest.layers.map((layer) => {
		const type = TYPES.get(layer.type);
		assertCheck(type !== undefined, `the manifest describes a linear of the type ${JSON.stringify(layer.type)}`);
		return { row: layer.shape[1], elements: layer.shape[0] * layer.shape[1], type };
	});
}

/** No type that the recipe's name does not stand for, but for those that stand in where rows do not fit. */
function checkNamedTypes(manifest: Manifest, described: readonly GgufLinear[], recipe: Recipe): void {
	const { types } = recipe.name;
	assertCheck(types.length > 0, `there is no GGUF type for the recipe ${recipe.canonical}`);
	for (const [index, { row, type }] of described.entries()) {
		const feedForward = /(mlp|ffn|feed_forward|experts)\b/.test(manifest.layers[index]?.name ?? "");
		const wanted = feedForward ? types : [...types, ...TYPES_OF_LARGE_MODELS];
		const held = wanted
			.flatMap((name) => TYPES.get(name) ?? [])
			.some((one) => {
				const block = BLOCKS.get(one);
				return block !== undefined && row % block[0] !== 0
					? (FALLBACKS.get(one)?.includes(type) ?? false)
					: type === one;
			});
		assertCheck(
			held,
			`the manifest describes a linear of ${GGMLQuantizationType[type]}, which ${recipe.name.name} has none of`,
		);
	}
}

/** As many weights of every type as the manifest says. */
function checkTypes(
	path: string,
	linears: readonly GgufLinear[],
	layers: readonly GgufLinear[],
): { readonly average: number; readonly text: string } {
	// Experts lie on top of each other in one tensor, and some parts of attention beside each other: their rows tell.
	const described = weightsByPlace(layers);
	const found = weightsByPlace(linears);
	for (const place of new Set([...described.keys(), ...found.keys()])) {
		assertCheck(
			described.get(place) === found.get(place),
			`${path} holds ${found.get(place) ?? 0} weights of linears as ${place}, the manifest describes ${described.get(place) ?? 0}`,
		);
	}
	let bits = 0;
	let weights = 0;
	const counts = new Map<string, number>();
	for (const { elements, type } of layers) {
		const [blockWeights, blockBytes] = BLOCKS.get(type) ?? [1, 4];
		bits += (elements / blockWeights) * blockBytes * 8;
		weights += elements;
		const name = GGMLQuantizationType[type];
		counts.set(name, (counts.get(name) ?? 0) + 1);
	}
	const average = bits / Math.max(1, weights);
	const byType = [...counts].toSorted().map(([name, count]) => `${count} ${name}`);
	return { average, text: `${layers.length} linears take ${average.toFixed(3)} bits a weight: ${byType.join(", ")}` };
}

function weightsByPlace(linears: readonly GgufLinear[]): ReadonlyMap<string, number> {
	const places = new Map<string, number>();
	for (const { row, elements, type } of linears) {
		const place = `${GGMLQuantizationType[type]} of ${row} inputs`;
		places.set(place, (places.get(place) ?? 0) + elements);
	}
	return places;
}

/** No more bits a weight, or bytes of files, than the recipe allows. */
function checkBudget(path: string, average: number, manifest: Manifest, recipe: Recipe): void {
	const { bitsPerWeight, budgetBytes } = recipe;
	assertCheck(
		bitsPerWeight === null || average <= bitsPerWeight + 1e-6,
		`the linears of ${path} take ${average.toFixed(3)} bits a weight, the recipe allows ${bitsPerWeight}`,
	);
	const bytes = ownBytes(manifest);
	assertCheck(
		budgetBytes === null || bytes <= budgetBytes,
		`the files take ${bytes} bytes, the recipe allows ${byteSizeText(budgetBytes ?? 0)} (${budgetBytes})`,
	);
	const target = manifest.mixed?.targetBytes ?? null;
	assertCheck(
		target === budgetBytes && (manifest.mixed?.targetBitsPerWeight ?? null) === bitsPerWeight,
		"the manifest's mix was chosen under another budget than the recipe's",
	);
}

/** The importance matrix beside the model, if there is one: a GGUF file of sums and counts, and nothing else. */
async function checkImportance(directory: string, manifest: Manifest): Promise<string> {
	const found = manifest.files.map(({ path }) => path).filter(isImportance);
	const stray = manifest.files.find(({ path }) => path.startsWith("imatrix/") && !isImportance(path));
	assertCheck(stray === undefined, `${stray?.path} is not named as an importance matrix is`);
	assertCheck(found.length <= 1, "there are several importance matrices");
	const [path] = found;
	if (path === undefined) return "";
	const names = new Set<string>();
	const { fields, linears } = await checkFile(join(directory, path), path, names);
	assertCheck(fields.get("general.type") === "imatrix", `${path} does not say that it is an importance matrix`);
	assertCheck(linears.length === 0, `${path} holds quantized weights`);
	for (const name of names) {
		const sums = name.replace(/\.(in_sum2|counts)$/, "");
		assertCheck(
			sums !== name && names.has(`${sums}.in_sum2`) && names.has(`${sums}.counts`),
			`${path} holds ${name}, which is no part of an importance matrix`,
		);
	}
	return `, importance of ${names.size / 2} matrices beside it`;
}

async function checkFile(
	path: string,
	label: string,
	names: Set<string>,
): Promise<{ fields: ReadonlyMap<string, unknown>; linears: readonly GgufLinear[] }> {
	const fileSize = (await lstat(path)).size;
	await checkMagic(path);
	const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true }).catch(
		(error: unknown) => {
			throw new CheckFailure(`${label} cannot be read as GGUF: ${error instanceof Error ? error.message : error}`);
		},
	);
	const fields = new Map<string, unknown>(Object.entries(metadata));
	const alignment = Number(fields.get("general.alignment") ?? DEFAULT_ALIGNMENT);
	const dataStart = Number(tensorDataOffset);
	let end = 0;
	const linears: GgufLinear[] = [];
	assertCheck(tensorInfos.length > 0, `${label} holds no tensors`);
	for (const tensor of tensorInfos.toSorted((one, other) => (one.offset < other.offset ? -1 : 1))) {
		assertCheck(!names.has(tensor.name), `${label} names ${tensor.name} twice`);
		names.add(tensor.name);
		const block = BLOCKS.get(tensor.dtype);
		assertCheck(block !== undefined, `${tensor.name} has the type ${tensor.dtype}, which no recipe here writes`);
		const row = Number(tensor.shape[0] ?? 1n);
		const elements = tensor.shape.reduce((product, count) => product * Number(count), 1);
		assertCheck(row % block[0] === 0, `the rows of ${tensor.name} are not whole blocks`);
		const offset = Number(tensor.offset);
		assertCheck(offset % alignment === 0, `${tensor.name} is not aligned`);
		assertCheck(offset >= end, `${tensor.name} overlaps another tensor`);
		end = offset + (elements / block[0]) * block[1];
		assertCheck(dataStart + end <= fileSize, `${tensor.name} points outside the file`);
		if (!PLAIN.has(tensor.dtype) && !VOCABULARY.has(tensor.name)) linears.push({ row, elements, type: tensor.dtype });
	}
	assertCheck(dataStart + end + alignment > fileSize, `${label} holds more than its tensors`);
	return { fields, linears };
}

async function checkMagic(path: string): Promise<void> {
	const handle = await open(path, "r");
	try {
		const { buffer } = await handle.read(new Uint8Array(4), 0, 4, 0);
		assertCheck(new TextDecoder().decode(buffer) === "GGUF", "the file does not start as GGUF files do");
	} finally {
		await handle.close();
	}
}
