import type { Recipe } from "../protocol/recipe.ts";

export function uniqueRecipes(recipes: readonly Recipe[]): readonly Recipe[] {
	return [...new Map(recipes.map((recipe) => [recipe.canonical, recipe])).values()];
}
