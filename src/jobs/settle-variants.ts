import { setJobEstimate } from "../db/admission.ts";
import type { Handle } from "../db/database.ts";
import { insertJob, listJobsOfCommit, listSupersedable, listSuperseded, requestStop } from "../db/jobs.ts";
import { insertRequest } from "../db/requests.ts";
import { setSourceRefusal } from "../db/status-discussions.ts";
import {
	insertVariant,
	listVariantsOfJob,
	listVariantsOfSourceCommit,
	reassignVariant,
	setVariantState,
} from "../db/variants.ts";
import { type Recipe, recipeHash } from "../protocol/recipe.ts";
import type { JobRecord } from "../records/job.ts";
import type { SourceFacts } from "../records/source.ts";
import { isOpen, type VariantRecord } from "../records/variant.ts";
import { refusalOfRecipe } from "../verify/refusal-of-recipe.ts";
import type { CheckedRequest } from "./check-request.ts";
import type { JobsContext } from "./context.ts";
import { plannedSeconds } from "./estimate/estimate-job.ts";
import { hasSketch } from "./estimate/estimate-run.ts";
import { isAutomatic } from "./is-automatic.ts";
import type { RequestInput, RequestOutcome } from "./ports.ts";
import { type Reusable, reusableVariants } from "./reusable-variants.ts";
import { isOfFormerName, isStanding, targetOf } from "./target-of.ts";
import { stepOf } from "./transitions.ts";
import { uniqueRecipes } from "./unique-recipes.ts";

type Granted = Extract<CheckedRequest, { readonly ok: true }>;
/** `earlier`: the variant's own row of a try that came to nothing. */
type Missing = { readonly recipe: Recipe; readonly earlier: VariantRecord | null };
type Made = { readonly job: JobRecord; readonly variants: readonly VariantRecord[] };

/** A job that has not started yet can take more variants along. */
function joinable(jobs: readonly JobRecord[]): JobRecord | null {
	return jobs.find((job) => (job.state === "planned" || job.state === "waiting") && !job.cancelRequested) ?? null;
}

/**
 * Which recipes are published or under way, and which are to be made. Nobody's request tries again what failed; what was
 * superseded is wanted again where its commit turns out to be the newest: whoever looked earlier may record it later.
 */
async function sortRecipes(
	context: JobsContext,
	tx: Handle,
	facts: SourceFacts,
	recipes: readonly Recipe[],
	jobs: readonly JobRecord[],
	automatic: boolean,
): Promise<{ readonly settled: readonly VariantRecord[]; readonly missing: readonly Missing[] }> {
	const rows = await listVariantsOfSourceCommit(tx, facts);
	const known = new Map(rows.map((variant) => [variant.recipeHash, variant]));
	const ids = automatic ? jobs.map(({ id }) => id) : [];
	const superseded = await listSuperseded(tx, ids);
	const settled: VariantRecord[] = [];
	const missing: Missing[] = [];
	for (const recipe of recipes) {
		const variant = known.get(recipeHash(recipe)) ?? null;
		const job = jobs.find((one) => one.id === variant?.jobId);
		const isLive =
			job !== undefined && stepOf(job.state) !== null && !job.cancelRequested && variant?.state !== "failed";
		const isSettled =
			variant !== null &&
			(variant.state === "published"
				? isStanding(variant, facts, targetOf(context.ports, facts, recipe))
				: isLive || (automatic && !superseded.has(variant.jobId ?? "")));
		if (isSettled) settled.push(variant);
		else missing.push({ recipe, earlier: variant });
	}
	return { settled, missing };
}

function variantRow(context: JobsContext, facts: SourceFacts, recipe: Recipe, jobId: string) {
	const { ports, clock, newId } = context;
	return {
		id: newId(),
		sourceRepo: facts.repo,
		sourceSha: facts.sha,
		recipe,
		jobId,
		targetRepo: targetOf(ports, facts, recipe),
		now: clock.now(),
	};
}

/** A job that publishes and computes nothing, with the variants whose weights are there already. */
async function insertReuse(
	context: JobsContext,
	tx: Handle,
	facts: SourceFacts,
	missing: readonly Missing[],
	reused: ReadonlyMap<string, Reusable>,
): Promise<Made | null> {
	if (reused.size === 0) return null;
	const job = await insertJob(tx, {
		id: context.newId(),
		sourceRepo: facts.repo,
		sourceSha: facts.sha,
		state: "planned",
		statusText: "The weights are those of an earlier commit: nothing has to be computed.",
		refusal: null,
		facts,
		now: context.clock.now(),
	});
	const variants: VariantRecord[] = [];
	for (const { recipe } of missing) {
		const origin = reused.get(recipeHash(recipe));
		if (origin === undefined) continue;
		const row = variantRow(context, facts, recipe, job.id);
		// The files stay in the repo that they are in, also where that is named after the source's former name.
		const { targetRepo } = isOfFormerName(origin.variant, row.targetRepo) ? origin.variant : row;
		variants.push(await insertVariant(tx, { ...row, targetRepo, reusedFrom: origin.variant.id }));
	}
	return { job, variants };
}

/** The job that runs for what is missing: one that waits already, or a new one. With what it may cost, where that is known. */
async function insertRun(
	context: JobsContext,
	tx: Handle,
	{ facts, estimator }: Granted,
	missing: readonly Missing[],
	jobs: readonly JobRecord[],
	automatic: boolean,
): Promise<(Made & { readonly created: boolean }) | null> {
	if (missing.length === 0) return null;
	const joined = joinable(jobs);
	const job =
		joined ??
		(await insertJob(tx, {
			id: context.newId(),
			sourceRepo: facts.repo,
			sourceSha: facts.sha,
			state: "planned",
			statusText: "Planned.",
			refusal: null,
			facts,
			priority: automatic ? 0 : 1,
			now: context.clock.now(),
		}));
	const variants: VariantRecord[] = [];
	const isHeld = ({ recipe }: Missing): boolean => refusalOfRecipe(facts.modelType, recipe) === null;
	for (const { recipe, earlier } of missing) {
		const row = variantRow(context, facts, recipe, job.id);
		const variant =
			earlier === null
				? await insertVariant(tx, row)
				: await reassignVariant(tx, { id: earlier.id, jobId: job.id, targetRepo: row.targetRepo });
		// A run for nothing else is left to say it itself: a job has something to do.
		const refusal = missing.some(isHeld) ? refusalOfRecipe(facts.modelType, recipe) : null;
		if (refusal !== null) await setVariantState(tx, { id: variant.id, state: "failed", refusal });
		variants.push(refusal === null ? variant : { ...variant, state: "failed", refusal });
	}
	const created = joined === null;
	if (estimator === null) return { job, variants, created };
	// With what others asked of the same job.
	const count = (await listVariantsOfJob(tx, job.id)).filter(isOpen).length;
	const estimate = estimator({ facts, variants: count, sketchReused: await hasSketch(context, tx, facts) });
	const { text, choice } = estimate;
	await setJobEstimate(tx, {
		id: job.id,
		text,
		microUsd: choice?.microUsd ?? null,
		seconds: plannedSeconds(estimate),
		flavor: choice?.hardware.flavor ?? null,
	});
	return { job: { ...job, planText: text }, variants, created };
}

/** Ends jobs of older commits that a push made pointless; `kept`: jobs whose work is reused. Those that were asked to end. */
async function supersede(
	context: JobsContext,
	tx: Handle,
	facts: SourceFacts,
	kept: ReadonlySet<string>,
): Promise<readonly JobRecord[]> {
	const ended: JobRecord[] = [];
	for (const { job } of await listSupersedable(tx, facts)) {
		if (kept.has(job.id)) continue;
		const stopped = await requestStop(tx, { id: job.id, stopAs: "superseded", now: context.clock.now() });
		if (stopped) ended.push(job);
	}
	return ended;
}

/**
 * Finds or makes the job for every recipe of a request: what is published or under way is joined, what another commit
 * with the same weights has is reused, the rest gets a run. Under the source's lock.
 */
export async function settleVariants(
	context: JobsContext,
	tx: Handle,
	input: RequestInput,
	granted: Granted,
): Promise<{ readonly outcome: RequestOutcome; readonly wakeJobs: readonly JobRecord[] }> {
	const { configuration, clock, newId } = context;
	const { facts } = granted;
	const automatic = isAutomatic(input.kind);
	const recipes = uniqueRecipes(input.recipes.length > 0 ? input.recipes : granted.usual);
	const jobs = await listJobsOfCommit(tx, facts);
	const { settled, missing } = await sortRecipes(context, tx, facts, recipes, jobs, automatic);
	const reused = await reusableVariants(tx, input, facts, missing);
	const reuse = await insertReuse(context, tx, facts, missing, reused);
	const toRun = missing.filter(({ recipe }) => !reused.has(recipeHash(recipe)));
	const run = await insertRun(context, tx, granted, toRun, jobs, automatic);
	if (reuse !== null || run !== null) {
		await setSourceRefusal(tx, { sourceRepo: facts.repo, refused: null, now: clock.now() });
	}
	const unfinished = settled.find((variant) => variant.state !== "published");
	const job = run?.job ?? reuse?.job ?? jobs.find((one) => one.id === unfinished?.jobId) ?? null;
	const request = await insertRequest(tx, {
		id: newId(),
		kind: input.kind,
		dedupeKey: input.dedupeKey,
		sourceRepo: facts.repo,
		sourceSha: facts.sha,
		recipes: recipes.map((recipe) => recipe.canonical),
		requester: input.requester,
		replyTo: input.replyTo,
		jobId: job?.id ?? null,
		refusal: null,
		now: clock.now(),
	});
	const wakeJobs = [...(run?.created === true ? [run.job] : []), ...(reuse === null ? [] : [reuse.job])];
	if (automatic && configuration.watch.supersede) {
		// What still runs for these weights is waited for, not ended.
		const kept = new Set([...reused.values()].map(({ variant }) => variant.jobId));
		wakeJobs.push(...(await supersede(context, tx, facts, kept)));
	}
	const variants = [...settled, ...(reuse?.variants ?? []), ...(run?.variants ?? [])];
	if (job === null) return { outcome: { kind: "published", request, variants }, wakeJobs };
	const created = run === null ? reuse !== null : run.created;
	return { outcome: { kind: "planned", request, job, variants, created }, wakeJobs };
}
