import type { Refusal } from "../errors.ts";
import { CONTAINER_MODEL_TYPES } from "../protocol/container-model-types.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { quoted, refusal } from "./refusals.ts";

/**
 * Why a container cannot hold a kind of model, as far as `config.json` tells; the runner reads the same lists. What only
 * tensors, a tokenizer or the engine tell, the run refuses.
 */
export function refusalOfRecipe(modelType: string | null | undefined, recipe: Recipe): Refusal | null {
	const known = CONTAINER_MODEL_TYPES[recipe.name.container];
	if (modelType == null || known === null || known.types.includes(modelType)) return null;
	return refusal(
		"unsupported-model",
		`${recipe.canonical} cannot be written: ${known.written} ${known.types.join(", ")}; not for ${quoted(modelType)}.`,
		"Ask for another container.",
	);
}
