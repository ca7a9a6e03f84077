import { parseSourceSettings, SOURCE_SETTINGS_FILE } from "../config/source-settings.ts";
import type { Refusal } from "../errors.ts";
import { parsedRecipes, type Recipe } from "../protocol/recipe.ts";
import type { OwnerSettings } from "../records/source.ts";

export type OwnerVerdict =
	/** `recipes`: what is made when nobody named any; `null`: the operator's rules say. */
	{ readonly ok: true; readonly recipes: readonly Recipe[] | null } | { readonly ok: false; readonly refusal: Refusal };

function optedOut(message: string, remedy: string): OwnerVerdict {
	return { ok: false, refusal: { code: "opted-out", message, remedy } };
}

/** `automatic`: nobody asked by name; only then does an owner's "no" count. */
export function checkOwnerSettings(owner: OwnerSettings, automatic: boolean): OwnerVerdict {
	if (automatic && owner.closed) {
		return optedOut(
			"The owner closed the bot's status discussion.",
			"Opening it again lets pushes be quantized; a request in a comment runs all the same.",
		);
	}
	if (owner.settings === null) return { ok: true, recipes: null };
	const read = parseSourceSettings(owner.settings);
	if (!read.ok) {
		return {
			ok: false,
			refusal: {
				code: "bad-settings",
				message: `The file ${SOURCE_SETTINGS_FILE} in this repo cannot be used. ${read.problems.join(" ")}`,
				remedy: `Its owner can correct it. It knows "enabled: true" or "enabled: false", and "recipes:" with a list.`,
			},
		};
	}
	const { enabled, recipes } = read.settings;
	if (automatic && !enabled) {
		return optedOut(
			`The file ${SOURCE_SETTINGS_FILE} says "enabled: false".`,
			"Its owner can change it; a request in a comment runs all the same.",
		);
	}
	return { ok: true, recipes: recipes === undefined ? null : parsedRecipes(recipes) };
}
