import { parseRecipe, type Recipe } from "../../src/protocol/recipe.ts";

export function recipeOf(text: string): Recipe {
	const parsed = parseRecipe(text);
	if (!parsed.ok) throw new Error(parsed.refusal.message);
	return parsed.recipe;
}
