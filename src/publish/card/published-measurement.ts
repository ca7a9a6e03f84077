import type { Manifest, Measured } from "../../protocol/manifest.ts";
import { parseRecipe } from "../../protocol/recipe.ts";
import type { RecipeName } from "../../protocol/recipe-table.ts";

/** The measurement of the published quantizer. */
export function published(manifest: Manifest): Measured {
	const found = manifest.evaluation.measured.find((measured) => measured.quantizer === manifest.quantizer);
	if (found === undefined)
		throw new Error("The manifest was not verified before publishing. This is a bug in yaqa-bot.");
	return found;
}

export function recipeNameOf(manifest: Manifest | undefined): RecipeName {
	const parsed = parseRecipe(manifest?.recipe ?? "");
	if (!parsed.ok)
		throw new Error(`A published recipe does not parse: ${parsed.refusal.message} This is a bug in yaqa-bot.`);
	return parsed.recipe.name;
}
