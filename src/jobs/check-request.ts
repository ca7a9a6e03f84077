import { getStatusDiscussion } from "../db/status-discussions.ts";
import { listVariantsOfSourceCommit } from "../db/variants.ts";
import { setSourceVisibility } from "../db/visibility.ts";
import type { Refusal } from "../errors.ts";
import { type Recipe, recipeHash } from "../protocol/recipe.ts";
import type { Inspection, SourceFacts } from "../records/source.ts";
import { refusalOfRecipe } from "../verify/refusal-of-recipe.ts";
import type { JobsContext } from "./context.ts";
import { estimatorOf, hasSketch } from "./estimate/estimate-run.ts";
import { type Estimator, refusalOfEstimate } from "./estimate/estimator.ts";
import { inspectSettled } from "./inspect-settled.ts";
import { isAutomatic } from "./is-automatic.ts";
import { checkOwnerSettings, type OwnerVerdict } from "./owner-settings.ts";
import type { RequestInput } from "./ports.ts";
import { reusableVariants } from "./reusable-variants.ts";
import { isStanding, targetOf } from "./target-of.ts";
import { uniqueRecipes } from "./unique-recipes.ts";
import { checkToldKind, maximumParameters, recipesOfRules } from "./watch-rules.ts";

export type CheckedRequest =
	| {
			readonly ok: true;
			readonly facts: SourceFacts;
			/** What is made when nobody named recipes. */
			readonly usual: readonly Recipe[];
			readonly estimator: Estimator | null;
	  }
	/** `sha`: the commit that was looked at; `null`: there is none. */
	| { readonly ok: false; readonly sha: string | null; readonly refusal: Refusal };

/** Looks at the source, and at what its owner and the operator say: whether the request may be carried out at all. */
export async function checkRequest(context: JobsContext, input: RequestInput): Promise<CheckedRequest> {
	const { watch } = context.configuration;
	const inspection = await inspectSettled(context, { repo: input.sourceRepo, revision: input.revision ?? "main" });
	const isPrivate = inspection.ok ? inspection.facts.private : inspection.private;
	if (isPrivate !== undefined) {
		const { handle } = context.database;
		// Before the first row of it is written, which pages would show.
		await setSourceVisibility(handle, {
			repo: input.sourceRepo,
			private: isPrivate,
			gated: inspection.ok ? String(inspection.facts.gated) : "unknown",
			now: context.clock.now(),
		});
	}
	const unwanted = unwantedKind(watch, input, inspection);
	if (unwanted !== null) return unwanted;
	if (!inspection.ok) return inspection;
	const { facts } = inspection;
	const refused = (refusal: Refusal): CheckedRequest => ({ ok: false, sha: facts.sha, refusal });
	const estimator = await estimatorOf(context);
	const owner = await ownerSettingsFor(context, input, facts);
	if (!owner.ok) return refused(owner.refusal);
	const usual = owner.recipes ?? recipesOfRules(watch, input.sourceRepo);
	const refusal =
		tooLarge(facts, maximumParameters(watch, input.sourceRepo)) ??
		heldByNone(facts, uniqueRecipes(input.recipes.length > 0 ? input.recipes : usual)) ??
		(await tooExpensive(context, input, facts, estimator, usual));
	return refusal === null ? { ok: true, facts, usual, estimator } : refused(refusal);
}

/** A push that the operator's rules leave alone, also where its files would be refused: nobody waits for an answer. */
function unwantedKind(
	watch: JobsContext["configuration"]["watch"],
	input: RequestInput,
	inspection: Inspection,
): CheckedRequest | null {
	if (!isAutomatic(input.kind)) return null;
	const { told } = inspection;
	if (told === undefined) return null;
	const found = checkToldKind(watch, input.sourceRepo, told);
	if (found.watched) return null;
	const sha = inspection.ok ? inspection.facts.sha : inspection.sha;
	const remedy = "The operator sets in watch.rules which kinds are taken.";
	return { ok: false, sha, refusal: { code: "opted-out", message: found.reason, remedy } };
}

/** What the owner says about work that nobody named recipes for. */
async function ownerSettingsFor(context: JobsContext, input: RequestInput, facts: SourceFacts): Promise<OwnerVerdict> {
	const automatic = isAutomatic(input.kind);
	if (!automatic && input.recipes.length > 0) return { ok: true, recipes: null };
	const { discussion } = await getStatusDiscussion(context.database.handle, input.sourceRepo);
	return checkOwnerSettings(
		await context.ports.readOwnerSettings({ repo: input.sourceRepo, sha: facts.sha, discussion }),
		automatic,
	);
}

function tooLarge(facts: SourceFacts, limit: number): Refusal | null {
	if (facts.parameters <= limit) return null;
	return {
		code: "too-large",
		message: `${facts.repo} has ${facts.parameters} parameters; this bot takes up to ${limit}.`,
		remedy: "Whoever runs the bot can raise watch.maxParameters.",
	};
}

/** Why nothing of what is asked for can be made; where something can, the rest is refused beside it. */
function heldByNone({ modelType }: SourceFacts, recipes: readonly Recipe[]): Refusal | null {
	const refusals = recipes.map((recipe) => refusalOfRecipe(modelType, recipe));
	return refusals.includes(null) ? null : (refusals[0] ?? null);
}

async function tooExpensive(
	context: JobsContext,
	input: RequestInput,
	facts: SourceFacts,
	estimator: Estimator | null,
	usual: readonly Recipe[],
): Promise<Refusal | null> {
	if (estimator === null) return null;
	const { configuration, database } = context;
	const { handle } = database;
	const source = { repo: input.sourceRepo, sha: facts.sha };
	const asked = uniqueRecipes(input.recipes.length > 0 ? input.recipes : usual);
	const known = new Map(
		(await listVariantsOfSourceCommit(handle, source)).map((variant) => [variant.recipeHash, variant]),
	);
	const missing = asked
		.filter((recipe) => {
			const variant = known.get(recipeHash(recipe));
			return variant === undefined || !isStanding(variant, facts, targetOf(context.ports, facts, recipe));
		})
		.map((recipe) => ({ recipe, earlier: null }));
	const variants = missing.length - (await reusableVariants(handle, input, facts, missing)).size;
	if (variants === 0) return null;
	return refusalOfEstimate(
		estimator({ facts, variants, sketchReused: await hasSketch(context, handle, facts) }),
		configuration.budget,
	);
}
