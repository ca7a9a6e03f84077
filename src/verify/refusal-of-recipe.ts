import type { Refusal } from "../errors.ts";
import { ONNX_MODEL_TYPES } from "../protocol/onnx-model-types.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { quoted, refusal } from "./refusals.ts";

/**
 * Why a container cannot hold a kind of model, as far as `config.json` tells; the runner reads the same list. What only
 * tensors, a tokenizer or the engine tell, the run refuses.
 */
export function refusalOfRecipe(modelType: string | null | undefined, recipe: Recipe): Refusal | null {
	if (modelType == null || recipe.name.container !== "onnx" || ONNX_MODEL_TYPES.includes(modelType)) return null;
	return refusal(
		"unsupported-model",
		`${recipe.canonical} cannot be written: ONNX graphs are built for ${ONNX_MODEL_TYPES.join(", ")}; not for ${quoted(modelType)}.`,
		"Ask for another container.",
	);
}
