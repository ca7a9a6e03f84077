import type { Handle } from "../db/database.ts";
import { listReusable } from "../db/variants.ts";
import { type Recipe, recipeHash } from "../protocol/recipe.ts";
import type { SourceFacts } from "../records/source.ts";
import type { VariantRecord } from "../records/variant.ts";
import { isAutomatic } from "./is-automatic.ts";
import type { RequestInput } from "./ports.ts";

export type Reusable = Awaited<ReturnType<typeof listReusable>>[number];

/**
 * Which of these recipes need no run, because the weights are those of another commit whose variants are published or
 * under way. A GGUF file carries tokenizer and template inside, so that it is made anew when these changed. Work that is
 * still under way is waited for only when nothing else of this commit needs a run: else that run makes all of it.
 * Somebody who asks by name gets one job, so that theirs are taken over all or none, and never for a commit that they
 * named: it may be an old one.
 */
export async function reusableVariants(
	tx: Handle,
	input: Pick<RequestInput, "kind" | "revision">,
	facts: SourceFacts,
	missing: readonly { readonly recipe: Recipe; readonly earlier: VariantRecord | null }[],
): Promise<ReadonlyMap<string, Reusable>> {
	const { content } = facts;
	if (content === undefined || content === null || missing.length === 0) return new Map();
	const candidates = await listReusable(tx, { repo: facts.repo, sha: facts.sha, content });
	const found = new Map<string, Reusable>();
	for (const { recipe, earlier } of missing) {
		if (earlier !== null) continue;
		const origin = candidates.find(
			({ variant, companions }) =>
				variant.recipeHash === recipeHash(recipe) && (companions || recipe.name.container !== "gguf"),
		);
		if (origin !== undefined) found.set(recipeHash(recipe), origin);
	}
	if (!isAutomatic(input.kind)) {
		const isWhole = found.size === missing.length && [...found.values()].every((origin) => !origin.isLive);
		return isWhole && input.revision === undefined ? found : new Map();
	}
	if (found.size === missing.length) return found;
	return new Map([...found].filter(([, origin]) => !origin.isLive));
}
