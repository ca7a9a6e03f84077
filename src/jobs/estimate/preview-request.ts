import { listVariantsOfSourceCommit } from "../../db/variants.ts";
import type { Refusal } from "../../errors.ts";
import { type Recipe, recipeHash } from "../../protocol/recipe.ts";
import type { VariantRecord } from "../../records/variant.ts";
import type { JobsContext } from "../context.ts";
import { inspectSettled } from "../inspect-settled.ts";
import { isStanding, targetOf } from "../target-of.ts";
import { recipesOfRules } from "../watch-rules.ts";

type PreviewedVariant = {
	readonly recipe: string;
	readonly targetRepo: string;
	/** Of the weights at the recipe's stored bits, before anything was measured. */
	readonly bytes: number;
	/** Whether `bytes` is the recipe's own budget, which the files keep to. */
	readonly isLimit: boolean;
	readonly existing: VariantRecord | null;
};

/** What a request would come to, without making it. */
export type RequestPreview =
	| {
			readonly ok: true;
			readonly sha: string;
			readonly architecture: string;
			readonly parameters: number;
			readonly variants: readonly PreviewedVariant[];
	  }
	| { readonly ok: false; readonly refusal: Refusal };

export type PreviewRequest = (input: {
	readonly sourceRepo: string;
	readonly revision?: string;
	/** Empty: what a push gives. */
	readonly recipes: readonly Recipe[];
}) => Promise<RequestPreview>;

export async function previewRequest(
	context: JobsContext,
	input: Parameters<PreviewRequest>[0],
): Promise<RequestPreview> {
	const { ports, configuration, database } = context;
	const { sourceRepo: repo } = input;
	const inspection = await inspectSettled(context, { repo, revision: input.revision ?? "main" });
	if (!inspection.ok) return { ok: false, refusal: inspection.refusal };
	const { sha, architecture, parameters } = inspection.facts;
	const recipes = input.recipes.length > 0 ? input.recipes : recipesOfRules(configuration.watch, repo);
	const target = (recipe: Recipe): string => targetOf(ports, inspection.facts, recipe);
	const known = await listVariantsOfSourceCommit(database.handle, { repo, sha });
	return {
		ok: true,
		sha,
		architecture,
		parameters,
		variants: recipes.map((recipe) => ({
			recipe: recipe.canonical,
			targetRepo: target(recipe),
			bytes: recipe.budgetBytes ?? Math.round((parameters * recipe.name.bitsPerWeight) / 8),
			isLimit: recipe.budgetBytes !== null,
			existing:
				known.find(
					(variant) =>
						variant.recipeHash === recipeHash(recipe) &&
						(variant.state !== "published" || isStanding(variant, inspection.facts, target(recipe))),
				) ?? null,
		})),
	};
}
