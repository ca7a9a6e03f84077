import type { Manifest } from "../protocol/manifest.ts";
import { parseRecipe } from "../protocol/recipe.ts";
import { DEFAULT_CONTEXT } from "./fit-question.ts";
import { runMemory, weightBytes } from "./memory.ts";

/** Bytes that a run of these files takes with the usual context; `null` where the model's shape is not known. */
export function usualMemory(manifest: Pick<Manifest, "files" | "recipe" | "shape">): number | null {
	const parsed = parseRecipe(manifest.recipe);
	if (!parsed.ok || manifest.shape == null) return null;
	const { container } = parsed.recipe.name;
	const settings = {
		container,
		context: Math.min(DEFAULT_CONTEXT, manifest.shape.contextLength ?? DEFAULT_CONTEXT),
		cache: "f16",
	} as const;
	return Math.ceil(runMemory(weightBytes(manifest), manifest.shape, settings).total);
}
