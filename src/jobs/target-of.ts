import { isOfOneCommit } from "../protocol/one-commit.ts";
import type { Recipe } from "../protocol/recipe.ts";
import type { SourceFacts } from "../records/source.ts";
import type { VariantRecord } from "../records/variant.ts";
import type { Ports } from "./ports.ts";

type Looked = Pick<SourceFacts, "repo" | "sha" | "headSha">;

/** Whether a commit is the one that the source's main branch points at. */
function isHead(facts: Looked): boolean {
	return facts.headSha === undefined || facts.headSha === facts.sha;
}

/** Where a recipe of this commit is published. */
export function targetOf(ports: Pick<Ports, "nameTarget">, facts: Looked, recipe: Recipe): string {
	return ports.nameTarget({ sourceRepo: facts.repo, recipe, commit: isHead(facts) ? null : facts.sha });
}

/**
 * Whether a commit's variant is there for whoever asks for it now. What a newer commit took the place of is not; what was
 * made for a commit beside the main branch does not stand for the head that it has become. What was made under a former
 * name of the source does.
 */
export function isStanding(variant: VariantRecord, facts: Looked, target: string): boolean {
	if (variant.state !== "published" || variant.isCurrent === false) return false;
	return variant.targetRepo === target || !isHead(facts) || isOfFormerName(variant, target);
}

/**
 * Whether a variant of this source and recipe stands in the repo that was named after the source's former name: where the
 * namespace is the same, and neither is for one commit, nothing else makes the repos two.
 */
export function isOfFormerName(variant: Pick<VariantRecord, "targetRepo">, target: string): boolean {
	const isSameNamespace = variant.targetRepo.split("/")[0] === target.split("/")[0];
	return isSameNamespace && !isOfOneCommit(variant.targetRepo) && !isOfOneCommit(target);
}
