import { createHash } from "node:crypto";
import { byteSizeText, parseByteSize } from "./byte-size.ts";
import { RECIPE_NAMES, RECIPES, type RecipeName } from "./recipe-table.ts";

const { mixed: MIXED, refineSweeps: SWEEPS } = RECIPES;
const MIXED_EXAMPLES_TEXT = MIXED.examples.map((example) => `"${example}"`).join(" or ");

/** What stands for a mix in place of a row of the table. Whole bits, as the types' names count them: Q3_K stores 3.44. */
function mixedName(bitsPerWeight: number): RecipeName {
	return {
		name: MIXED.name,
		container: "gguf",
		bits: Math.floor(bitsPerWeight),
		defaultGroup: null,
		groups: [],
		bitsPerWeight,
		zeroPoints: false,
		embeddingBits: [],
		types: [],
	};
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

type Draft = Omit<Recipe, "canonical">;
/** The draft with the option in it, or why it cannot be. */
type OptionRule = (draft: Draft, value: string) => Draft | string;

function switchOf(key: string, value: string): boolean | string {
	return value === "on" || value === "off" ? value === "on" : `${key} takes "on" or "off"; not "${value}".`;
}

const OPTIONS: Readonly<Record<Exclude<(typeof RECIPES.options)[number], "block">, OptionRule>> = {
	group(draft, value) {
		const { name, defaultGroup, groups } = draft.name;
		if (defaultGroup === null) return `The group of "${name}" is fixed by its container.`;
		const group = Number(value);
		return groups.includes(group) ? { ...draft, group } : `"${name}" takes group=${groups.join(", ")}; not "${value}".`;
	},
	refine(draft, value) {
		const refineSweeps = Number(value);
		return /^\d+$/.test(value) && refineSweeps <= SWEEPS.most
			? { ...draft, refineSweeps }
			: `refine takes a number of sweeps from 0 to ${SWEEPS.most}; not "${value}".`;
	},
	tune(draft, value) {
		const tune = switchOf("tune", value);
		return typeof tune === "string" ? tune : { ...draft, tune };
	},
	zero(draft, value) {
		if (!draft.name.zeroPoints) return `The zero points of "${draft.name.name}" are fixed by its container.`;
		const zero = switchOf("zero", value);
		return typeof zero === "string" ? zero : { ...draft, zero };
	},
	embedding(draft, value) {
		const { name, embeddingBits } = draft.name;
		if (embeddingBits.length === 0) return `How "${name}" stores its embedding is fixed by its container.`;
		const known = ["float", ...embeddingBits.map((bits) => `q${bits}`)];
		if (!known.includes(value)) return `embedding takes ${known.join(", ")}; not "${value}".`;
		return { ...draft, embeddingBits: value === "float" ? null : Number(value.slice(1)) };
	},
	bpw(draft, value) {
		if (draft.name.name !== MIXED.name) return noBudget(draft);
		const bitsPerWeight = Number(value);
		const fits = bitsPerWeight >= MIXED.leastBitsPerWeight && bitsPerWeight <= MIXED.mostBitsPerWeight;
		return fits && /^\d{1,2}(\.\d{1,3})?$/.test(value)
			? { ...draft, name: mixedName(bitsPerWeight), bitsPerWeight }
			: `bpw takes bits a weight from ${MIXED.leastBitsPerWeight} to ${MIXED.mostBitsPerWeight}, for example bpw=3.5; not "${value}".`;
	},
	bytes(draft, value) {
		if (draft.name.name !== MIXED.name) return noBudget(draft);
		const budgetBytes = parseByteSize(value);
		return budgetBytes !== null
			? { ...draft, budgetBytes }
			: `bytes takes the size of all files, as in bytes=4.5GB (kB, MB, GB, TB: powers of 1000) or bytes=4.2GiB (KiB, MiB, GiB, TiB: powers of 1024), up to 100 TB; not "${value}".`;
	},
};

function noBudget(draft: Draft): string {
	return `"${draft.name.name}" takes no budget; budgets are ${MIXED_EXAMPLES_TEXT}.`;
}

function isOption(key: string): key is keyof typeof OPTIONS {
	return Object.hasOwn(OPTIONS, key);
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
	if (trimmed.length === 0 || trimmed.length > RECIPES.maximumCharacters) {
		return refuse(
			`A recipe has 1 to ${RECIPES.maximumCharacters} characters, for example "gguf:q4_0" or "w4a16,group=32".`,
		);
	}
	const [written = "", ...options] = trimmed.split(",").map((part) => part.trim());
	const head = RECIPES.otherNames[written] ?? written;
	const name = head === MIXED.name ? mixedName(0) : RECIPE_NAMES.find((candidate) => candidate.name === head);
	if (name === undefined) {
		const known = RECIPE_NAMES.map((candidate) => candidate.name);
		return refuse(`There is no recipe named "${head}".`, nearestWord(head, known));
	}
	let draft: Draft = {
		name,
		group: name.defaultGroup,
		refineSweeps: SWEEPS.default,
		tune: true,
		zero: false,
		bitsPerWeight: null,
		budgetBytes: null,
		embeddingBits: null,
	};
	const seen = new Set<string>();
	for (const option of options) {
		const [writtenKey = "", ...rest] = option.split("=");
		const key = writtenKey === "block" ? "group" : writtenKey;
		if (seen.has(key)) return refuse(`The option "${key}" is given twice.`);
		seen.add(key);
		if (!isOption(key)) {
			return refuse(`There is no recipe option "${writtenKey}".`, nearestWord(writtenKey, RECIPES.options));
		}
		const changed = OPTIONS[key](draft, rest.join("="));
		if (typeof changed === "string") return refuse(changed);
		draft = changed;
	}
	if (draft.bitsPerWeight !== null && draft.budgetBytes !== null) {
		return refuse("bpw and bytes exclude each other: say one of them.");
	}
	if (draft.name.name === MIXED.name && draft.bitsPerWeight === null && draft.budgetBytes === null) {
		return refuse(
			`"${MIXED.name}" alone names no type: write one, as in "gguf:q4_k_m", or a budget, as in ${MIXED_EXAMPLES_TEXT}.`,
		);
	}
	return { ok: true, recipe: { canonical: canonicalText(draft), ...draft } };
}

/** The one spelling of a recipe: what differs from the defaults, in a fixed order. */
function canonicalText(draft: Draft): string {
	const { name, group, refineSweeps, tune, zero, bitsPerWeight, budgetBytes, embeddingBits } = draft;
	const written: string[] = [name.name];
	if (bitsPerWeight !== null) written.push(`bpw=${bitsPerWeight}`);
	if (budgetBytes !== null) written.push(`bytes=${byteSizeText(budgetBytes).toLowerCase()}`);
	if (group !== name.defaultGroup) written.push(`group=${group}`);
	if (zero) written.push("zero=on");
	if (embeddingBits !== null) written.push(`embedding=q${embeddingBits}`);
	if (refineSweeps !== SWEEPS.default) written.push(`refine=${refineSweeps}`);
	if (!tune) written.push("tune=off");
	return written.join(",");
}

/** The recipe of a stored canonical text. */
export function storedRecipe(canonical: string): Recipe {
	const parsed = parseRecipe(canonical);
	if (!parsed.ok) throw new Error(`The stored recipe "${canonical}" is not known to this version.`);
	return parsed.recipe;
}

/** The identity of a recipe in the database and in file names: 16 hex digits of its canonical string's sha256. */
export function recipeHash(recipe: Recipe): string {
	return createHash("sha256").update(recipe.canonical).digest("hex").slice(0, 16);
}

/** The folder the runner writes a recipe to: every character but letters, digits, dot and minus becomes `-`. */
export function recipeDirectory(canonical: string): string {
	return canonical.replaceAll(/[^A-Za-z0-9.-]/g, "-");
}

/** The recipes of texts that were checked before; what does not parse is left out. */
export function parsedRecipes(texts: readonly string[]): readonly Recipe[] {
	return texts.flatMap((text) => {
		const parsed = parseRecipe(text);
		return parsed.ok ? [parsed.recipe] : [];
	});
}
