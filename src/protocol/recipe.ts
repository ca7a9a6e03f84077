import { createHash } from "node:crypto";
import { byteSizeText, parseByteSize } from "./byte-size.ts";

/** Containers a variant can be written in. */
export type Container = "gguf" | "onnx" | "compressed-tensors" | "gptq";

/** What a short recipe name stands for. One table feeds the parser, the planner, the help text and the runner's own check. */
export type RecipeName = {
	readonly name: string;
	readonly container: Container;
	/** Bits of one stored code, scales not counted. 0: a budget of bytes, where only the finished files tell. */
	readonly bits: number;
	/** Weights that share one scale when the recipe does not say. `null`: fixed by the container. */
	readonly defaultGroup: number | null;
	readonly groups: readonly number[];
	/** Stored bits per quantized weight at the default group, scales counted. */
	readonly bitsPerWeight: number;
	/** Whether `zero=on` gives every group a zero point. */
	readonly zeroPoints: boolean;
	/** Bits that `embedding=q4` and the like can give embedding and output layer. Empty: the container decides. */
	readonly embeddingBits: readonly number[];
};

const GROUPS = [32, 64, 128] as const;

function gguf(name: string, bits: number, bitsPerWeight: number): RecipeName {
	return {
		name: `gguf:${name}`,
		container: "gguf",
		bits,
		defaultGroup: null,
		groups: [],
		bitsPerWeight,
		zeroPoints: false,
		embeddingBits: [],
	};
}

function grouped(
	name: string,
	container: Container,
	bits: number,
	defaultGroup: number,
	scaleBits: number,
): RecipeName {
	return {
		name,
		container,
		bits,
		defaultGroup,
		groups: GROUPS,
		bitsPerWeight: bits + scaleBits / defaultGroup,
		zeroPoints: container === "compressed-tensors",
		embeddingBits: container === "onnx" ? [4, 8] : [],
	};
}

export const RECIPE_NAMES: readonly RecipeName[] = [
	gguf("q4_0", 4, 4.5),
	gguf("q8_0", 8, 8.5),
	gguf("q4_1", 4, 5),
	gguf("q5_0", 5, 5.5),
	gguf("q2_k", 2, 2.625),
	gguf("q3_k", 3, 3.4375),
	gguf("q4_k", 4, 4.5),
	gguf("q5_k", 5, 5.5),
	gguf("q6_k", 6, 6.5625),
	grouped("onnx:q4", "onnx", 4, 32, 32),
	grouped("onnx:q8", "onnx", 8, 32, 32),
	grouped("onnx:q4f16", "onnx", 4, 32, 16),
	grouped("onnx:q2", "onnx", 2, 32, 32),
	grouped("w4a16", "compressed-tensors", 4, 128, 16),
	grouped("w8a16", "compressed-tensors", 8, 128, 16),
	grouped("w2a16", "compressed-tensors", 2, 128, 16),
	grouped("w3a16", "compressed-tensors", 3, 128, 16),
	grouped("w5a16", "compressed-tensors", 5, 128, 16),
	grouped("w6a16", "compressed-tensors", 6, 128, 16),
	grouped("w7a16", "compressed-tensors", 7, 128, 16),
	grouped("gptq:4", "gptq", 4, 128, 16),
	grouped("gptq:8", "gptq", 8, 128, 16),
	grouped("gptq:3", "gptq", 3, 128, 16),
	grouped("gptq:2", "gptq", 2, 128, 16),
];

/** The name of recipes that give every linear a type of its own, within `bpw` bits a weight or `bytes` of files. */
export const MIXED_NAME = "gguf";
/** The two budgets that a mix can have, as people write them. */
export const MIXED_EXAMPLES = [`${MIXED_NAME},bpw=3.5`, `${MIXED_NAME},bytes=4.5GB`] as const;
const MIXED_EXAMPLES_TEXT = MIXED_EXAMPLES.map((example) => `"${example}"`).join(" or ");
const LEAST_BITS_PER_WEIGHT = 2;
const MOST_BITS_PER_WEIGHT = 8.5;

/** What stands for a mix in place of a row of the table. Whole bits, as the types' names count them: Q3_K stores 3.44. */
function mixedName(bitsPerWeight: number): RecipeName {
	return { ...gguf("mixed", Math.floor(bitsPerWeight), bitsPerWeight), name: MIXED_NAME };
}

/** One variant's description. `canonical` is its identity: equal recipes have equal canonical strings. */
export type Recipe = {
	readonly canonical: string;
	readonly name: RecipeName;
	/** `null` where the container fixes it. */
	readonly group: number | null;
	/** Coordinate-descent sweeps after rounding. */
	readonly refineSweeps: number;
	/** Whether scales are tuned under the true KL. */
	readonly tune: boolean;
	/** Whether every group has a zero point beside its scale. */
	readonly zero: boolean;
	/** Bits a weight that the quantized linears may take on average, where types are mixed; else `null`. */
	readonly bitsPerWeight: number | null;
	/** What all files of the variant may take together, its manifest aside, where types are mixed; else `null`. */
	readonly budgetBytes: number | null;
	/** Bits of embedding and output layer where the recipe puts them into blocks; `null`: as the container keeps them. */
	readonly embeddingBits: number | null;
};

type RecipeRefusal = { readonly message: string; readonly suggestion: string | null };
type RecipeResult =
	| { readonly ok: true; readonly recipe: Recipe }
	| { readonly ok: false; readonly refusal: RecipeRefusal };

const MAXIMUM_RECIPE_CHARACTERS = 200;
/** Keys of the options that may follow a recipe's name. */
export const RECIPE_OPTIONS = ["group", "block", "refine", "tune", "zero", "embedding", "bpw", "bytes"] as const;
const MAXIMUM_SWEEPS = 10;
export const DEFAULT_REFINE_SWEEPS = 2;

/** Fewest single-character edits between two words (Levenshtein). */
export function editDistance(from: string, to: string): number {
	let previous = Array.from({ length: to.length + 1 }, (_, index) => index);
	for (let row = 1; row <= from.length; row++) {
		const current = [row];
		for (let column = 1; column <= to.length; column++) {
			const substitution = (previous[column - 1] ?? 0) + (from[row - 1] === to[column - 1] ? 0 : 1);
			current.push(Math.min((previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, substitution));
		}
		previous = current;
	}
	return previous[to.length] ?? 0;
}

/** The candidate nearest to `word`, or `null` when none is near enough to be what was meant. */
export function nearestWord(word: string, candidates: readonly string[]): string | null {
	let best: string | null = null;
	let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
	for (const candidate of candidates) {
		const distance = editDistance(word, candidate);
		if (distance < bestDistance) {
			best = candidate;
			bestDistance = distance;
		}
	}
	return best;
}

function refuse(message: string, suggestion: string | null = null): RecipeResult {
	return { ok: false, refusal: { message, suggestion } };
}

/**
 * Parse `name[,option=value…]` as people write it: `w4a16,group=32`, `gguf:q4_0`, `onnx:q4,refine=0`.
 * Unknown names and options come back with the nearest known one.
 */
export function parseRecipe(text: string): RecipeResult {
	const trimmed = text.trim().toLowerCase();
	if (trimmed.length === 0 || trimmed.length > MAXIMUM_RECIPE_CHARACTERS) {
		return refuse(
			`A recipe has 1 to ${MAXIMUM_RECIPE_CHARACTERS} characters, for example "gguf:q4_0" or "w4a16,group=32".`,
		);
	}
	const [head = "", ...options] = trimmed.split(",").map((part) => part.trim());
	const listed = head === MIXED_NAME ? mixedName(0) : RECIPE_NAMES.find((candidate) => candidate.name === head);
	if (listed === undefined) {
		const suggestion = nearestWord(
			head,
			RECIPE_NAMES.map((candidate) => candidate.name),
		);
		return refuse(`There is no recipe named "${head}".`, suggestion);
	}
	let name = listed;
	let bitsPerWeight: number | null = null;
	let budgetBytes: number | null = null;
	let group = name.defaultGroup;
	let refineSweeps = DEFAULT_REFINE_SWEEPS;
	let tune = true;
	let zero = false;
	let embeddingBits: number | null = null;
	const seen = new Set<string>();
	for (const option of options) {
		const separator = option.indexOf("=");
		const writtenKey = separator < 0 ? option : option.slice(0, separator);
		const value = separator < 0 ? "" : option.slice(separator + 1);
		const key = writtenKey === "block" ? "group" : writtenKey;
		if (seen.has(key)) return refuse(`The option "${key}" is given twice.`);
		seen.add(key);
		switch (key) {
			case "group": {
				const wanted = Number(value);
				if (name.defaultGroup === null) return refuse(`The group of "${name.name}" is fixed by its container.`);
				if (!name.groups.includes(wanted)) {
					return refuse(`"${name.name}" takes group=${name.groups.join(", ")}; not "${value}".`);
				}
				group = wanted;
				break;
			}
			case "refine": {
				const sweeps = Number(value);
				if (!/^\d+$/.test(value) || sweeps > MAXIMUM_SWEEPS) {
					return refuse(`refine takes a number of sweeps from 0 to ${MAXIMUM_SWEEPS}; not "${value}".`);
				}
				refineSweeps = sweeps;
				break;
			}
			case "tune": {
				if (value !== "on" && value !== "off") return refuse(`tune takes "on" or "off"; not "${value}".`);
				tune = value === "on";
				break;
			}
			case "zero": {
				if (!name.zeroPoints) return refuse(`The zero points of "${name.name}" are fixed by its container.`);
				if (value !== "on" && value !== "off") return refuse(`zero takes "on" or "off"; not "${value}".`);
				zero = value === "on";
				break;
			}
			case "embedding": {
				if (name.embeddingBits.length === 0) {
					return refuse(`How "${name.name}" stores its embedding is fixed by its container.`);
				}
				const known = ["float", ...name.embeddingBits.map((bits) => `q${bits}`)];
				if (!known.includes(value)) return refuse(`embedding takes ${known.join(", ")}; not "${value}".`);
				embeddingBits = value === "float" ? null : Number(value.slice(1));
				break;
			}
			case "bpw": {
				if (name.name !== MIXED_NAME) {
					return refuse(`"${name.name}" has one type; mixed types are ${MIXED_EXAMPLES_TEXT}.`);
				}
				bitsPerWeight = Number(value);
				const fits = bitsPerWeight >= LEAST_BITS_PER_WEIGHT && bitsPerWeight <= MOST_BITS_PER_WEIGHT;
				if (!/^\d{1,2}(\.\d{1,3})?$/.test(value) || !fits) {
					return refuse(
						`bpw takes bits a weight from ${LEAST_BITS_PER_WEIGHT} to ${MOST_BITS_PER_WEIGHT}, for example bpw=3.5; not "${value}".`,
					);
				}
				name = mixedName(bitsPerWeight);
				break;
			}
			case "bytes": {
				if (name.name !== MIXED_NAME) {
					return refuse(`"${name.name}" has one type; mixed types are ${MIXED_EXAMPLES_TEXT}.`);
				}
				budgetBytes = parseByteSize(value);
				if (budgetBytes === null) {
					return refuse(
						`bytes takes the size of all files, as in bytes=4.5GB (kB, MB, GB, TB: powers of 1000) or bytes=4.2GiB (KiB, MiB, GiB, TiB: powers of 1024), up to 100 TB; not "${value}".`,
					);
				}
				break;
			}
			default:
				return refuse(`There is no recipe option "${writtenKey}".`, nearestWord(writtenKey, RECIPE_OPTIONS));
		}
	}
	if (bitsPerWeight !== null && budgetBytes !== null) {
		return refuse("bpw and bytes exclude each other: say one of them.");
	}
	if (name.name === MIXED_NAME && bitsPerWeight === null && budgetBytes === null) {
		return refuse(
			`"${MIXED_NAME}" alone names no type: write one, as in "gguf:q4_k", or a budget, as in ${MIXED_EXAMPLES_TEXT}.`,
		);
	}
	const written: string[] = [name.name];
	if (bitsPerWeight !== null) written.push(`bpw=${bitsPerWeight}`);
	if (budgetBytes !== null) written.push(`bytes=${byteSizeText(budgetBytes).toLowerCase()}`);
	if (group !== name.defaultGroup) written.push(`group=${group}`);
	if (zero) written.push("zero=on");
	if (embeddingBits !== null) written.push(`embedding=q${embeddingBits}`);
	if (refineSweeps !== DEFAULT_REFINE_SWEEPS) written.push(`refine=${refineSweeps}`);
	if (!tune) written.push("tune=off");
	const canonical = written.join(",");
	return {
		ok: true,
		recipe: { canonical, name, group, refineSweeps, tune, zero, bitsPerWeight, budgetBytes, embeddingBits },
	};
}

/** The identity of a recipe in the database and in file names: 16 hex digits of its canonical string's sha256. */
export function recipeHash(recipe: Recipe): string {
	return createHash("sha256").update(recipe.canonical).digest("hex").slice(0, 16);
}

/** The folder the runner writes a recipe to: every character but letters, digits, dot and minus becomes `-`. */
export function recipeDirectory(canonical: string): string {
	return canonical.replaceAll(/[^A-Za-z0-9.-]/g, "-");
}
