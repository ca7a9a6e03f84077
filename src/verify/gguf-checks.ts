import { lstat, open } from "node:fs/promises";
import { join } from "node:path";
import { GGMLQuantizationType, gguf, parseGgufShardFilename } from "@huggingface/gguf";
import { byteSizeText } from "../protocol/byte-size.ts";
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
]);

const RECIPE_TYPES: ReadonlyMap<string, GGMLQuantizationType> = new Map([
	["gguf:q4_0", GGMLQuantizationType.Q4_0],
	["gguf:q8_0", GGMLQuantizationType.Q8_0],
	["gguf:q4_1", GGMLQuantizationType.Q4_1],
	["gguf:q5_0", GGMLQuantizationType.Q5_0],
	["gguf:q2_k", GGMLQuantizationType.Q2_K],
	["gguf:q3_k", GGMLQuantizationType.Q3_K],
	["gguf:q4_k", GGMLQuantizationType.Q4_K],
	["gguf:q5_k", GGMLQuantizationType.Q5_K],
	["gguf:q6_k", GGMLQuantizationType.Q6_K],
]);

/** Types of a mix, by the names that manifests give them. */
const MIXED_TYPES: ReadonlyMap<string, GGMLQuantizationType> = new Map(
	[...RECIPE_TYPES].map(([name, type]) => [name.replace("gguf:", ""), type]),
);

/** What stands in for a type where a row is no whole number of its blocks. */
const FALLBACKS: ReadonlyMap<GGMLQuantizationType, GGMLQuantizationType> = new Map([
	[GGMLQuantizationType.Q2_K, GGMLQuantizationType.Q4_0],
	[GGMLQuantizationType.Q3_K, GGMLQuantizationType.Q4_0],
	[GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_0],
	[GGMLQuantizationType.Q5_K, GGMLQuantizationType.Q5_0],
	[GGMLQuantizationType.Q6_K, GGMLQuantizationType.Q8_0],
]);

const DEFAULT_ALIGNMENT = 32;
/** Kept at 8 bits whatever the recipe says. */
const VOCABULARY = new Set(["token_embd.weight", "per_layer_token_embd.weight", "output.weight"]);
const PLAIN: ReadonlySet<GGMLQuantizationType> = new Set([
	GGMLQuantizationType.F32,
	GGMLQuantizationType.F16,
	GGMLQuantizationType.BF16,
]);

/** The GGUF file, or its parts, against the recipe and their own headers. Returns what was seen, for the job page. */
export async function checkGguf(directory: string, manifest: Manifest, recipe: Recipe): Promise<string> {
	const mixed = recipe.name.name === RECIPES.mixed.name;
	const wanted = mixed ? null : (RECIPE_TYPES.get(recipe.name.name) ?? null);
	assertCheck(mixed || wanted !== null, `there is no GGUF type for the recipe ${recipe.canonical}`);
	const paths = manifest.files.map((file) => file.path).filter((path) => path.endsWith(".gguf"));
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
	const checked =
		wanted === null ? checkMix(first, quantized, manifest, recipe) : checkOneType(first, quantized, manifest, wanted);
	return `GGUF ${architecture}: ${names.size} tensors fit the file, ${checked}`;
}

type GgufLinear = { readonly row: number; readonly elements: number; readonly type: GGMLQuantizationType };

function checkOneType(
	path: string,
	linears: readonly GgufLinear[],
	manifest: Manifest,
	wanted: GGMLQuantizationType,
): string {
	const block = BLOCKS.get(wanted);
	const expectedOf = (row: number): GGMLQuantizationType =>
		block !== undefined && row % block[0] !== 0 ? (FALLBACKS.get(wanted) ?? wanted) : wanted;
	// Experts lie on top of each other in one tensor, and some parts of attention beside each other: their rows tell.
	const described = new Map<string, number>();
	for (const { shape } of manifest.layers) count(described, expectedOf(shape[1]), shape[1], shape[0] * shape[1]);
	const found = new Map<string, number>();
	for (const { row, elements, type } of linears) count(found, type, row, elements);
	for (const place of new Set([...described.keys(), ...found.keys()])) {
		assertCheck(
			described.get(place) === found.get(place),
			`${path} holds ${found.get(place) ?? 0} weights of linears as ${place}, the manifest describes ${described.get(place) ?? 0} by the recipe's type or its fallback`,
		);
	}
	return `${manifest.layers.length} linears are ${GGMLQuantizationType[wanted]}`;
}

function count(places: Map<string, number>, type: GGMLQuantizationType, row: number, weights: number): void {
	const place = `${GGMLQuantizationType[type]} of ${row} inputs`;
	places.set(place, (places.get(place) ?? 0) + weights);
}

/** Every type as often as the manifest says, and no more bits a weight, or bytes of files, than the recipe allows. */
function checkMix(path: string, linears: readonly GgufLinear[], manifest: Manifest, recipe: Recipe): string {
	const described = new Map<string, number>();
	for (const layer of manifest.layers) {
		const type = MIXED_TYPES.get(layer.type);
		assertCheck(type !== undefined, `the manifest describes a linear of the type ${JSON.stringify(layer.type)}`);
		const place = `${GGMLQuantizationType[type]} ${layer.shape[0] * layer.shape[1]}`;
		described.set(place, (described.get(place) ?? 0) + 1);
	}
	let bits = 0;
	let weights = 0;
	const counts = new Map<string, number>();
	for (const { elements, type } of linears) {
		const place = `${GGMLQuantizationType[type]} ${elements}`;
		const left = described.get(place) ?? 0;
		if (left === 0) continue;
		described.set(place, left - 1);
		const [blockWeights, blockBytes] = BLOCKS.get(type) ?? [1, 4];
		bits += (elements / blockWeights) * blockBytes * 8;
		weights += elements;
		const name = GGMLQuantizationType[type];
		counts.set(name, (counts.get(name) ?? 0) + 1);
	}
	const missing = [...described].find(([, left]) => left > 0);
	assertCheck(
		missing === undefined,
		`${path} lacks ${missing?.[1]} linear(s) of ${missing?.[0]} weights that the manifest describes`,
	);
	const average = bits / Math.max(1, weights);
	const { bitsPerWeight, budgetBytes } = recipe;
	assertCheck(
		bitsPerWeight === null || average <= bitsPerWeight + 1e-6,
		`the linears of ${path} take ${average.toFixed(3)} bits a weight, the recipe allows ${bitsPerWeight}`,
	);
	const bytes = manifest.files.reduce((sum, file) => sum + file.size, 0);
	assertCheck(
		budgetBytes === null || bytes <= budgetBytes,
		`the files take ${bytes} bytes, the recipe allows ${byteSizeText(budgetBytes ?? 0)} (${budgetBytes})`,
	);
	const target = manifest.mixed?.targetBytes ?? null;
	assertCheck(
		target === budgetBytes && (manifest.mixed?.targetBitsPerWeight ?? null) === bitsPerWeight,
		"the manifest's mix was chosen under another budget than the recipe's",
	);
	const byType = [...counts].toSorted().map(([name, count]) => `${count} ${name}`);
	return `${linears.length} linears take ${average.toFixed(3)} bits a weight: ${byType.join(", ")}`;
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
