import { parseRecipe } from "../../protocol/recipe.ts";
import { bitsOf, CONTAINER_WORDS } from "./vocabulary.ts";

/** The words of a line, in small letters, with numbers and their units joined. */
export function tokensOf(rest: string): readonly string[] {
	return (
		rest
			.toLowerCase()
			// "8 bit" is one word.
			.replaceAll(/\b(\d{1,2})\s+(bits?)\b/g, "$1$2")
			.replaceAll(/\b(\d{1,2}(?:\.\d{1,3})?)\s+bpw\b(?!=)/g, "$1bpw")
			.replaceAll(/\b(\d{1,6}(?:\.\d{1,3})?)\s+([kmgt]i?b)\b(?!=)/g, "$1$2")
			.split(/\s+/)
			.map((token) => token.replaceAll(/^["'(]+|["').,;:!?]+$/g, ""))
			.filter((token) => token.length > 0)
	);
}

/** `key=value` pairs whose value keeps its capitals, taken out of the line. */
export function takeOptions(rest: string): {
	readonly rest: string;
	readonly values: ReadonlyMap<string, string>;
	readonly twice: string | null;
} {
	const values = new Map<string, string>();
	let twice: string | null = null;
	const left = rest.replaceAll(
		/(^|\s)(revision|calibration|model)=(\S*)/gi,
		(_all, space: string, key: string, value: string) => {
			const name = key.toLowerCase();
			if (values.has(name)) twice = name;
			values.set(name, value.replaceAll(/^["']|["'.,;]+$/g, ""));
			return space;
		},
	);
	// "from branch dev" asks the same.
	const unbranched = left.replaceAll(
		/(^|\s)(?:from\s+)?(?:branch|tag)\s+([^\s=]+)/gi,
		(all, space: string, value: string) => {
			if (values.has("revision")) return all;
			values.set("revision", value.replaceAll(/[.,;!?]+$/g, ""));
			return space;
		},
	);
	return { rest: unbranched, values, twice };
}

/** A model written as it stands, `owner/name`, with the rest of the line. Two words of the grammar are none. */
export function takeModel(rest: string): { readonly rest: string; readonly models: readonly string[] } {
	const models: string[] = [];
	const left = rest.replaceAll(
		/(^|\s)([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?=\s|$)/g,
		(all, space: string, word) => {
			const name = String(word).replace(/[.,;:!?]+$/, "");
			const [owner = ""] = name.toLowerCase().split("/");
			if (CONTAINER_WORDS.has(owner) || bitsOf(owner) !== null || parseRecipe(owner).ok) return all;
			models.push(name);
			return space;
		},
	);
	return { rest: left, models };
}
