import { RECIPE_NAMES } from "../protocol/recipe-table.ts";

const MAXIMUM_CHARACTERS = 200;

/** The repo in a pasted address of the Hub or of this site; `null`: the text is none. */
function addressed(text: string): string | null {
	const [host = "", ...path] = text
		.replace(/^https?:\/\//i, "")
		.replace(/[?#].*$/, "")
		.split("/");
	const hasHost = /^https?:\/\//i.test(text) || /^[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}$/i.test(host);
	if (!hasHost) return null;
	const [owner = "", name = ""] = /^(?:m|models)$/.test(path[0] ?? "") ? path.slice(1) : path;
	return owner === "" || name === "" ? null : `${owner}/${name}`;
}

/** The words to look for in what somebody wrote or pasted. */
export function searchWords(written: string): readonly string[] {
	const text = written.slice(0, MAXIMUM_CHARACTERS).trim();
	const repo = addressed(text) ?? text;
	// Other publishers' names of a type, where this bot's has no size: Q4_K_M is a gguf:q4_k.
	const known = repo
		.toLowerCase()
		.replaceAll(/\b(q\d_k)_[sml]\b/g, (name, type: string) =>
			RECIPE_NAMES.some((recipe) => recipe.name === `gguf:${name}`) ? name : type,
		);
	const joined = known.replaceAll(/\b(\d{1,2})[- ]bits?\b/g, "$1bit");
	return [...new Set(joined.split(/[^a-z0-9]+/).filter((word) => word !== "" && word.length <= 64))].slice(0, 12);
}
