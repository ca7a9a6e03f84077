import { parsedRecipes, parseRecipe, type Recipe } from "../../protocol/recipe.ts";
import { type Container, RECIPE_NAMES, RECIPES } from "../../protocol/recipe-table.ts";
import { shown } from "./parsed-command.ts";
import type { LineWords } from "./token-rules.ts";

type Asked = Pick<LineWords, "explicit" | "bits" | "budgets" | "containers" | "options">;
type AskedRecipes =
	| { readonly ok: true; readonly recipes: readonly string[] }
	| { readonly ok: false; readonly message: string; readonly suggestion: string | null };

function problem(message: string, suggestion: string | null = null): AskedRecipes {
	return { ok: false, message, suggestion };
}

/** The recipes that a line asks for, as texts. None: it names none. */
export function askedRecipes(asked: Asked, usualRecipes: readonly string[]): AskedRecipes {
	const described =
		asked.budgets.length > 0 ? recipesOfBudgets(asked) : recipesOfWidths(asked, parsedRecipes(usualRecipes));
	if (!described.ok) return described;
	const recipes = [...asked.explicit, ...described.recipes];
	if (asked.options.length > 0) {
		const last = recipes.length - 1;
		if (last < 0) return problem(`Say which recipe "${shown(asked.options.join(","))}" belongs to.`);
		recipes[last] = [recipes[last], ...asked.options].join(",");
	}
	return { ok: true, recipes };
}

function recipesOfBudgets(asked: Asked): AskedRecipes {
	if (asked.bits.length > 0) {
		return problem(`bits and ${asked.budgets[0]?.split("=", 1)[0]} exclude each other: say one of them.`);
	}
	const other = asked.containers.find((container) => container !== RECIPES.mixed.name);
	const recipes: string[] = [];
	for (const option of asked.budgets) {
		const parsed = parseRecipe(`${RECIPES.mixed.name},${option}`);
		if (!parsed.ok) return problem(parsed.refusal.message);
		if (other !== undefined) {
			return problem(`Types are mixed in GGUF files only, not in ${other}.`, `quantize gguf ${option}`);
		}
		recipes.push(parsed.recipe.canonical);
	}
	return { ok: true, recipes };
}

/** Every width in every container; what is not said is as in the usual recipes. */
function recipesOfWidths(asked: Asked, usual: readonly Recipe[]): AskedRecipes {
	if (asked.bits.length === 0 && asked.containers.length === 0) return { ok: true, recipes: [] };
	const containers =
		asked.containers.length > 0 ? asked.containers : [...new Set(usual.map((recipe) => recipe.name.container))];
	const recipes: string[] = [];
	for (const container of containers) {
		const usualHere = usual.filter((recipe) => recipe.name.container === container);
		if (asked.bits.length === 0 && usualHere.length > 0) {
			recipes.push(...usualHere.map((recipe) => recipe.canonical));
			continue;
		}
		for (const bits of asked.bits.length > 0 ? asked.bits : [4]) {
			const name = RECIPE_NAMES.find((candidate) => candidate.container === container && candidate.bits === bits);
			if (name === undefined) return noSuchWidth(container, bits);
			recipes.push(name.name);
		}
	}
	return { ok: true, recipes };
}

function noSuchWidth(container: Container, bits: number): AskedRecipes {
	const known = RECIPE_NAMES.filter((candidate) => candidate.container === container);
	const widths = [...new Set(known.map((candidate) => candidate.bits))].toSorted((one, other) => one - other);
	// Of two that are as near the one that keeps more.
	const nearest = widths.toReversed().toSorted((one, other) => Math.abs(one - bits) - Math.abs(other - bits))[0];
	return problem(
		`There is no ${bits}-bit ${container} recipe; ${container} has ${widths.join(", ")} bits.`,
		nearest === undefined ? null : `quantize ${nearest}bit ${container}`,
	);
}
