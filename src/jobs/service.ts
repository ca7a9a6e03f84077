import { approveJob as approveRow, setJobPlan } from "../db/admission.ts";
import type { Handle } from "../db/database.ts";
import {
	getJob,
	insertJob,
	listJobsOfCommit,
	listSupersedable,
	lockJob,
	lockSource,
	moveJob,
	requestStop,
} from "../db/jobs.ts";
import { findRequestByKey, insertRequest } from "../db/requests.ts";
import { getStatusDiscussion, setSourceRefusal } from "../db/status-discussions.ts";
import { setKnownHead } from "../db/sweeps.ts";
import {
	dropCarrying,
	insertVariant,
	listCarriable,
	listVariantsOfJob,
	listVariantsOfSourceCommit,
	reassignVariant,
	resetVariantsOfJob,
} from "../db/variants.ts";
import type { Refusal } from "../errors.ts";
import { type Recipe, recipeHash } from "../protocol/recipe.ts";
import type { JobRecord } from "../records/job.ts";
import type { RequestKind, RequestRecord } from "../records/request.ts";
import type { Inspection, SourceFacts } from "../records/source.ts";
import type { VariantRecord } from "../records/variant.ts";
import type { JobsContext } from "./context.ts";
import { hasSketch, plannerOf } from "./estimate-run.ts";
import { judgeWishes, type WishVerdict } from "./owner-wishes.ts";
import { type Planner, refusalOfPlan } from "./plan-for-request.ts";
import type { RequestInput, RequestOutcome } from "./ports.ts";
import { cleanUpJob } from "./steps/clean-up-job.ts";
import { isStanding, targetOf } from "./target-of.ts";
import { stepOf, transition } from "./transitions.ts";
import { judgeTags, maximumParameters, recipesOfRules } from "./watch-rules.ts";

/** Requests that nobody made: they never try again what failed before, else every sweep would. */
function isAutomatic(kind: RequestKind): boolean {
	switch (kind) {
		case "push":
		case "sweep":
			return true;
		case "comment":
		case "api":
		case "cli":
			return false;
	}
}

function uniqueRecipes(recipes: readonly Recipe[]): readonly Recipe[] {
	return [...new Map(recipes.map((recipe) => [recipe.canonical, recipe])).values()];
}

/** What an earlier call with the same key came to, as things stand now. */
async function outcomeOf(handle: Handle, request: RequestRecord): Promise<RequestOutcome> {
	if (request.refusal !== null) return { kind: "refused", request, refusal: request.refusal };
	const all =
		request.sourceSha === null
			? []
			: await listVariantsOfSourceCommit(handle, { repo: request.sourceRepo, sha: request.sourceSha });
	const variants = all.filter((variant) => request.recipes.includes(variant.recipe));
	const job = request.jobId === null ? null : await getJob(handle, request.jobId);
	if (job === null || variants.every((variant) => variant.state === "published")) {
		return { kind: "published", request, variants };
	}
	return { kind: "planned", request, job, variants, created: false };
}

function tooLarge(facts: SourceFacts, limit: number): Refusal | null {
	if (facts.parameters <= limit) return null;
	return {
		code: "too-large",
		message: `${facts.repo} has ${facts.parameters} parameters; this bot takes up to ${limit}.`,
		remedy: "Whoever runs the bot can raise watch.maxParameters.",
	};
}

async function tooExpensive(
	context: JobsContext,
	input: RequestInput,
	facts: SourceFacts,
	planner: Planner | null,
	usual: readonly Recipe[],
): Promise<Refusal | null> {
	if (planner === null) return null;
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
	const variants = missing.length - (await carriable(handle, input, facts, missing)).size;
	if (variants === 0) return null;
	return refusalOfPlan(
		planner({ facts, variants, sketchReused: await hasSketch(context, handle, facts) }),
		configuration.budget,
	);
}

/** A refused source gets a failed job, so that there is a page that says why; asked again, the same one. */
async function recordRefusal(
	context: JobsContext,
	tx: Handle,
	input: RequestInput,
	refused: { readonly sha: string | null; readonly refusal: Refusal },
): Promise<{ readonly outcome: RequestOutcome; readonly wakeSide: string | null }> {
	const { sha, refusal } = refused;
	const now = context.clock.now();
	// Somebody else's quantized upload in a watched namespace is nothing to complain of.
	// An owner who said no wants no discussion about it.
	const isSilent =
		(isAutomatic(input.kind) && (refusal.code === "already-quantized" || refusal.code === "opted-out")) ||
		// A sweep may pass between the making of a repo and its first upload: nobody pushed anything to answer.
		(input.kind === "sweep" && refusal.code === "empty-repo");
	let job: JobRecord | null = null;
	let created = false;
	if (sha !== null && !isSilent) {
		const earlier = await listJobsOfCommit(tx, { repo: input.sourceRepo, sha });
		for (const candidate of earlier) {
			if (candidate.state === "failed" && candidate.refusal?.code === refusal.code) {
				const variants = await listVariantsOfJob(tx, candidate.id);
				if (variants.length === 0) job = candidate;
			}
		}
		if (job === null) {
			job = await insertJob(tx, {
				id: context.newId(),
				sourceRepo: input.sourceRepo,
				sourceSha: sha,
				state: "failed",
				statusText: refusal.message,
				refusal,
				facts: null,
				now,
			});
			created = true;
		}
		await setSourceRefusal(tx, { sourceRepo: input.sourceRepo, refused, now });
	}
	const request = await insertRequest(tx, {
		id: context.newId(),
		kind: input.kind,
		dedupeKey: input.dedupeKey,
		sourceRepo: input.sourceRepo,
		sourceSha: sha,
		recipes: input.recipes.map((recipe) => recipe.canonical),
		requester: input.requester,
		replyTo: input.replyTo,
		jobId: job?.id ?? null,
		refusal,
		now,
	});
	return { outcome: { kind: "refused", request, refusal }, wakeSide: created && job !== null ? job.id : null };
}

/** A job that has not started yet can take more variants along. */
function joinable(jobs: readonly JobRecord[]): JobRecord | null {
	return jobs.find((job) => (job.state === "planned" || job.state === "waiting") && !job.cancelRequested) ?? null;
}

type Carriable = Awaited<ReturnType<typeof listCarriable>>[number];

/**
 * Which of these recipes need no run, because the weights are those of another commit whose variants are published or
 * under way. A GGUF file carries tokenizer and template inside, so that it is made anew when these changed. Work that is
 * still under way is waited for only when nothing else of this commit needs a run: else that run makes all of it.
 * Somebody who asks by name gets one job, so that theirs are taken over all or none, and never for a commit that they
 * named: it may be an old one.
 */
async function carriable(
	tx: Handle,
	input: Pick<RequestInput, "kind" | "revision">,
	facts: SourceFacts,
	missing: readonly { readonly recipe: Recipe; readonly earlier: VariantRecord | null }[],
): Promise<ReadonlyMap<string, Carriable>> {
	const { content } = facts;
	if (content === undefined || content === null || missing.length === 0) return new Map();
	const candidates = await listCarriable(tx, { repo: facts.repo, sha: facts.sha, content });
	const found = new Map<string, Carriable>();
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

/** A job that publishes and computes nothing. */
function insertCarrier(context: JobsContext, tx: Handle, facts: SourceFacts): Promise<JobRecord> {
	return insertJob(tx, {
		id: context.newId(),
		sourceRepo: facts.repo,
		sourceSha: facts.sha,
		state: "planned",
		statusText: "The weights are those of an earlier commit: nothing has to be computed.",
		refusal: null,
		facts,
		now: context.clock.now(),
	});
}

type Planned = {
	readonly outcome: RequestOutcome;
	readonly wakeJobs: readonly JobRecord[];
};

async function plan(
	context: JobsContext,
	tx: Handle,
	input: RequestInput,
	facts: SourceFacts,
	planner: Planner | null,
	usual: readonly Recipe[],
): Promise<Planned> {
	const { configuration, ports, clock, newId } = context;
	const now = clock.now();
	const source = { repo: input.sourceRepo, sha: facts.sha };
	const recipes = uniqueRecipes(input.recipes.length > 0 ? input.recipes : usual);
	const known = new Map((await listVariantsOfSourceCommit(tx, source)).map((variant) => [variant.recipeHash, variant]));
	const jobs = await listJobsOfCommit(tx, source);
	const jobById = new Map(jobs.map((job) => [job.id, job]));
	const automatic = isAutomatic(input.kind);

	const settled: VariantRecord[] = [];
	const missing: { readonly recipe: Recipe; readonly earlier: VariantRecord | null }[] = [];
	for (const recipe of recipes) {
		const variant = known.get(recipeHash(recipe)) ?? null;
		const job = variant === null ? null : (jobById.get(variant.jobId) ?? null);
		const isLive = job !== null && stepOf(job.state) !== null && !job.cancelRequested && variant?.state !== "failed";
		const isSettled =
			variant !== null &&
			(variant.state === "published"
				? isStanding(variant, facts, targetOf(ports, facts, recipe))
				: isLive || automatic);
		if (isSettled) settled.push(variant);
		else missing.push({ recipe, earlier: variant });
	}

	const carried = await carriable(tx, input, facts, missing);
	const toRun = missing.filter(({ recipe }) => !carried.has(recipeHash(recipe)));
	// What still runs for these weights is waited for, not ended.
	const kept = new Set([...carried.values()].map(({ variant }) => variant.jobId));
	const carrier = carried.size === 0 ? null : await insertCarrier(context, tx, facts);
	let job: JobRecord | null = null;
	let created = false;
	const planned: VariantRecord[] = [];
	for (const { recipe } of missing) {
		const origin = carried.get(recipeHash(recipe));
		if (origin === undefined || carrier === null) continue;
		planned.push(
			await insertVariant(tx, {
				id: newId(),
				sourceRepo: source.repo,
				sourceSha: source.sha,
				recipe,
				jobId: carrier.id,
				targetRepo: targetOf(ports, facts, recipe),
				carriedFrom: origin.variant.id,
				now,
			}),
		);
	}
	if (toRun.length > 0) {
		job = joinable(jobs);
		if (job === null) {
			created = true;
			job = await insertJob(tx, {
				id: newId(),
				sourceRepo: source.repo,
				sourceSha: source.sha,
				state: "planned",
				statusText: "Planned.",
				refusal: null,
				facts,
				priority: automatic ? 0 : 1,
				now,
			});
		}
		for (const { recipe, earlier } of toRun) {
			const targetRepo = targetOf(ports, facts, recipe);
			planned.push(
				earlier === null
					? await insertVariant(tx, {
							id: newId(),
							sourceRepo: source.repo,
							sourceSha: source.sha,
							recipe,
							jobId: job.id,
							targetRepo,
							now,
						})
					: await reassignVariant(tx, { id: earlier.id, jobId: job.id, targetRepo }),
			);
		}
		await setSourceRefusal(tx, { sourceRepo: source.repo, refused: null, now });
		if (planner !== null) {
			// With what others asked of the same job.
			const variants = (await listVariantsOfJob(tx, job.id)).length;
			const { text, choice } = planner({ facts, variants, sketchReused: await hasSketch(context, tx, facts) });
			await setJobPlan(tx, {
				id: job.id,
				text,
				microUsd: choice?.microUsd ?? null,
				flavour: choice?.hardware.flavour ?? null,
			});
			job = { ...job, planText: text };
		}
	} else if (carrier !== null) {
		job = carrier;
		created = true;
		await setSourceRefusal(tx, { sourceRepo: source.repo, refused: null, now });
	} else {
		const unfinished = settled.find((variant) => variant.state !== "published");
		job = unfinished === undefined ? null : (jobById.get(unfinished.jobId) ?? null);
	}

	const request = await insertRequest(tx, {
		id: newId(),
		kind: input.kind,
		dedupeKey: input.dedupeKey,
		sourceRepo: source.repo,
		sourceSha: source.sha,
		recipes: recipes.map((recipe) => recipe.canonical),
		requester: input.requester,
		replyTo: input.replyTo,
		jobId: job?.id ?? null,
		refusal: null,
		now,
	});

	const wakeJobs: JobRecord[] = created && job !== null ? [job] : [];
	if (carrier !== null && carrier !== job) wakeJobs.push(carrier);
	if (automatic && configuration.watch.supersede) {
		for (const older of await listSupersedable(tx, source)) {
			if (kept.has(older.job.id)) continue;
			const stopped = await requestStop(tx, { id: older.job.id, stopAs: "superseded", now });
			if (stopped) wakeJobs.push(older.job);
		}
	}
	const variants = [...settled, ...planned];
	const outcome: RequestOutcome =
		job === null ? { kind: "published", request, variants } : { kind: "planned", request, job, variants, created };
	return { outcome, wakeJobs };
}

/** What the owner and the operator's tags say about work that nobody named recipes for. */
async function wishesFor(context: JobsContext, input: RequestInput, facts: SourceFacts): Promise<WishVerdict> {
	const automatic = isAutomatic(input.kind);
	if (!automatic && input.recipes.length > 0) return { ok: true, recipes: null };
	const tags = judgeTags(context.configuration.watch, facts);
	if (automatic && !tags.watched) {
		return {
			ok: false,
			refusal: { code: "opted-out", message: tags.reason, remedy: "The operator sets the tags in watch.rules." },
		};
	}
	const { discussion } = await getStatusDiscussion(context.database.handle, input.sourceRepo);
	return judgeWishes(await context.ports.readWishes({ repo: input.sourceRepo, sha: facts.sha, discussion }), automatic);
}

export async function wakeJob(context: JobsContext, job: JobRecord): Promise<void> {
	const step = stepOf(job.state);
	const now = context.clock.now();
	if (step !== null) await context.wake({ kind: "step", step, jobId: job.id, runner: job.runner }, now);
	await context.wake({ kind: "side", jobId: job.id }, now);
}

/**
 * Records why we act, and makes sure that exactly one job does what is asked: what is published or under way already is
 * joined, never made twice. Calls with the same key, at the same time or after a crash, are one request.
 */
export async function recordRequest(context: JobsContext, input: RequestInput): Promise<RequestOutcome> {
	const { database, ports, configuration } = context;
	const earlier = await findRequestByKey(database.handle, input.dedupeKey);
	if (earlier !== null) return await outcomeOf(database.handle, earlier);

	const inspection: Inspection = await ports.inspectSource({
		repo: input.sourceRepo,
		revision: input.revision ?? "main",
	});
	const planner = inspection.ok ? await plannerOf(context) : null;
	const wishes: WishVerdict = inspection.ok
		? await wishesFor(context, input, inspection.facts)
		: { ok: true, recipes: null };
	const usual = (wishes.ok ? wishes.recipes : null) ?? recipesOfRules(configuration.watch, input.sourceRepo);
	const refused = inspection.ok
		? {
				sha: inspection.facts.sha,
				refusal: wishes.ok
					? (tooLarge(inspection.facts, maximumParameters(configuration.watch, input.sourceRepo)) ??
						(await tooExpensive(context, input, inspection.facts, planner, usual)))
					: wishes.refusal,
			}
		: inspection;

	const settled = await database.transaction(async (tx) => {
		await lockSource(tx, input.sourceRepo);
		const raced = await findRequestByKey(tx, input.dedupeKey);
		if (raced !== null) {
			return { outcome: await outcomeOf(tx, raced), wakeJobs: [] as readonly JobRecord[], wakeSide: null };
		}
		if (isAutomatic(input.kind) && refused.sha !== null) {
			await setKnownHead(tx, input.sourceRepo, refused.sha, context.clock.now());
		}
		if (refused.refusal !== null || !inspection.ok) {
			const refusal = refused.refusal;
			if (refusal === null) throw new Error("A refused source without a refusal.");
			const recorded = await recordRefusal(context, tx, input, { sha: refused.sha, refusal });
			return { ...recorded, wakeJobs: [] as readonly JobRecord[] };
		}
		return { ...(await plan(context, tx, input, inspection.facts, planner, usual)), wakeSide: null };
	});
	for (const job of settled.wakeJobs) await wakeJob(context, job);
	if (settled.wakeSide !== null) await context.wake({ kind: "side", jobId: settled.wakeSide }, context.clock.now());
	return settled.outcome;
}

export type JobChange =
	| { readonly ok: true; readonly job: JobRecord }
	| { readonly ok: false; readonly reason: string };

/** Asks for the end of a job. It is over when its state says so: by then nothing of its run is left. */
export async function cancelJob(context: JobsContext, id: string): Promise<JobChange> {
	const { database, clock } = context;
	const job = await getJob(database.handle, id);
	if (job === null) return { ok: false, reason: "There is no such job." };
	if (transition(job.state, "cancel") === null) {
		return {
			ok: false,
			reason:
				job.state === "announcing"
					? "It is too late: the variants are public already."
					: `The job is ${job.state} already.`,
		};
	}
	if (job.cancelRequested) return { ok: true, job };
	const asked = await requestStop(database.handle, { id, stopAs: "cancelled", now: clock.now() });
	const after = (await getJob(database.handle, id)) ?? job;
	if (!asked && !after.cancelRequested) return { ok: false, reason: `The job is ${after.state} already.` };
	await wakeJob(context, after);
	return { ok: true, job: after };
}

/** Lets a job run that costs more than may start by itself. */
export async function approveJob(context: JobsContext, id: string): Promise<JobChange> {
	const { database, clock } = context;
	const job = await getJob(database.handle, id);
	if (job === null) return { ok: false, reason: "There is no such job." };
	if (!(await approveRow(database.handle, id, clock.now()))) {
		return { ok: false, reason: `The job is ${job.state}: it waits for no approval.` };
	}
	await wakeJob(context, job);
	return { ok: true, job };
}

/** Gives a job that came to nothing another try, with a new fence, at the same commit. */
export async function retryJob(context: JobsContext, id: string): Promise<JobChange> {
	const { database, clock, ports, configuration, newId } = context;
	const job = await getJob(database.handle, id);
	if (job === null) return { ok: false, reason: "There is no such job." };
	const to = transition(job.state, "retry");
	if (to === null) {
		return {
			ok: false,
			reason: job.state === "done" ? "The job is done." : `The job is ${job.state}; it goes on by itself.`,
		};
	}
	const owned = await listVariantsOfJob(database.handle, id);
	const inspection =
		owned.length > 0 ? null : await ports.inspectSource({ repo: job.sourceRepo, revision: job.sourceSha });
	if (inspection !== null && !inspection.ok) return { ok: false, reason: inspection.refusal.message };
	// What the last attempt left behind is found by its fence, which the next dispatch changes.
	await cleanUpJob(context, job);
	const moved = await database.transaction(async (tx) => {
		await lockSource(tx, job.sourceRepo);
		const current = await lockJob(tx, id);
		if (current === null || current.job.state !== job.state || current.job.fence !== job.fence) return null;
		const now = clock.now();
		if (inspection?.ok === true) {
			const taken = new Set(
				(await listVariantsOfSourceCommit(tx, { repo: job.sourceRepo, sha: job.sourceSha })).map(
					(one) => one.recipeHash,
				),
			);
			for (const recipe of recipesOfRules(configuration.watch, job.sourceRepo)) {
				if (taken.has(recipeHash(recipe))) continue;
				await insertVariant(tx, {
					id: newId(),
					sourceRepo: job.sourceRepo,
					sourceSha: job.sourceSha,
					recipe,
					jobId: id,
					targetRepo: targetOf(ports, inspection.facts, recipe),
					now,
				});
			}
		} else {
			await resetVariantsOfJob(tx, id);
			// What was to be taken over could not be.
			await dropCarrying(tx, id);
		}
		const wanted = (await listVariantsOfJob(tx, id)).filter((variant) => variant.state === "wanted");
		if (wanted.length === 0) return null;
		await setSourceRefusal(tx, { sourceRepo: job.sourceRepo, refused: null, now });
		return await moveJob(tx, {
			id,
			from: job.state,
			fence: job.fence,
			owner: null,
			to,
			statusText: "Planned again.",
			now,
			cleanup: false,
			set: {
				refusal: null,
				stopAs: null,
				runAttempts: 0,
				runnerHandle: null,
				...(inspection?.ok === true ? { facts: inspection.facts } : {}),
			},
		});
	});
	if (moved === null) return { ok: false, reason: "There is nothing left to do for this job, or it changed just now." };
	await wakeJob(context, moved);
	return { ok: true, job: moved };
}
