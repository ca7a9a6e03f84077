import { appendNotes, setRemark } from "../../db/jobs.ts";
import { getNewestCommit } from "../../db/sweeps.ts";
import {
	dropReuse,
	getVariant,
	listVariantsOfJob,
	listVariantsOfSource,
	listVariantsOfSourceCommit,
	publishVariantRow,
	resetVariantsOfJob,
	retireVariants,
	setVariantState,
	stageVariant,
} from "../../db/variants.ts";
import { addPublishedRepo } from "../../db/visibility.ts";
import type { Refusal } from "../../errors.ts";
import { isOfOneCommit } from "../../protocol/one-commit.ts";
import type { JobRecord } from "../../records/job.ts";
import type { VariantFiles, VariantRecord } from "../../records/variant.ts";
import { stagedFiles } from "./staged-files.ts";
import { advance, advanceIn, StaleJobError, type Step, type StepContext, type StepResult } from "./step-context.ts";

/** The newest commit of the job's source; `null`: somebody asked for this one before any push told which is newest. */
async function newestCommit(context: StepContext, job: JobRecord): Promise<string | null> {
	const newest = await getNewestCommit(context.database.handle, job.sourceRepo);
	if (newest === null) return null;
	return newest.sha === job.sourceSha || newest.since > job.createdAt ? newest.sha : null;
}

type Reused = { readonly variant: VariantRecord; readonly origin: VariantRecord };
/** Variants that cannot be taken over: what they were to be taken from is not there any more. */
type Vanished = { readonly reason: string; readonly group: readonly Reused[] };

/** Variants whose weights are published for an earlier commit: they get this commit's small files, card and manifest. */
async function publishReused(
	context: StepContext,
	job: JobRecord,
	variants: readonly VariantRecord[],
): Promise<{
	readonly published: number;
	readonly refusal: Refusal | null;
	readonly vanished: readonly Vanished[];
}> {
	const { database, ports, clock, owner } = context;
	const pairs: Reused[] = [];
	for (const variant of variants) {
		if (variant.state !== "wanted" || variant.reusedFrom === undefined || variant.reusedFrom === null) continue;
		const origin = await getVariant(database.handle, variant.reusedFrom);
		if (origin !== null) pairs.push({ variant, origin });
	}
	let published = 0;
	let refusal: Refusal | null = null;
	const vanished: Vanished[] = [];
	for (const [targetRepo, group] of Map.groupBy(pairs, ({ variant }) => variant.targetRepo)) {
		const replaced = new Set(group.map(({ origin }) => origin.id));
		const siblings = (await listVariantsOfSource(database.handle, job.sourceRepo, { publishedOnly: true })).filter(
			({ id }) => !replaced.has(id),
		);
		const done = await ports.republish({ job, targetRepo, variants: group, siblings });
		if (done.kind === "vanished") {
			vanished.push({ reason: done.reason, group });
			continue;
		}
		await database.transaction(async (tx) => {
			const note =
				done.kind === "published"
					? `${targetRepo}: brought to this commit as ${done.targetSha.slice(0, 12)}.`
					: `${targetRepo}: refused. ${done.refusal.message}`;
			const held = await appendNotes(tx, { job, owner, notes: [note], now: clock.now() });
			if (!held) throw new StaleJobError(`Job ${job.id} moved on while it was published.`);
			for (const { variant } of group) {
				const manifest = done.kind === "published" ? done.manifests.get(variant.id) : undefined;
				if (done.kind === "published" && manifest !== undefined) {
					await stageVariant(tx, { id: variant.id, manifest });
					await publishVariantRow(tx, { variant, targetSha: done.targetSha, now: clock.now() });
					published++;
				} else if (done.kind === "refused") {
					await setVariantState(tx, { id: variant.id, state: "failed", refusal: done.refusal });
				}
			}
		});
		if (done.kind === "refused") refusal ??= done.refusal;
	}
	return { published, refusal, vanished };
}

/** publishing → planned: a run makes what cannot be taken over. What is published meanwhile stays. */
async function rebuild(context: StepContext, job: JobRecord, vanished: readonly Vanished[]): Promise<StepResult> {
	const pairs = vanished.flatMap(({ group }) => group);
	const recipes = pairs.map(({ variant }) => variant.recipe).join(", ");
	const reasons = vanished.map(({ reason }) => reason).join(" ");
	const remark = `${reasons} Nothing could be taken over, hence a run for ${recipes}.`;
	const moved = await context.database.transaction(async (tx) => {
		const planned = await advanceIn(tx, context, job, "rebuild", { statusText: "Planned." });
		await setRemark(tx, job.id, remark);
		await retireVariants(
			tx,
			pairs.map(({ origin }) => origin.id),
		);
		await resetVariantsOfJob(tx, job.id);
		await dropReuse(tx, job.id);
		return { ...planned, remark };
	});
	return { kind: "moved", job: moved };
}

/**
 * The cards of the source's other repos name what was published beside them, and what stays from earlier commits says so.
 * That a card could not be written stops nothing.
 */
async function refreshOtherCards(context: StepContext, job: JobRecord): Promise<void> {
	const { database, ports, log } = context;
	const siblings = await listVariantsOfSource(database.handle, job.sourceRepo, { publishedOnly: true });
	// What this job published has its card; where another job of this commit is about to publish, it writes that.
	const newest = await listVariantsOfSourceCommit(database.handle, { repo: job.sourceRepo, sha: job.sourceSha });
	const written = newest.filter((one) => (one.state === "published" ? one.jobId === job.id : one.state !== "failed"));
	const touched = new Set(written.map((one) => one.targetRepo));
	const others = siblings.filter(({ targetRepo }) => !touched.has(targetRepo) && !isOfOneCommit(targetRepo));
	for (const targetRepo of new Set(others.map((one) => one.targetRepo))) {
		try {
			const { sourceRepo, sourceSha: newestSha } = job;
			await ports.refreshCard({ targetRepo, sourceRepo, newestSha, siblings });
		} catch (error) {
			log.warn("A card could not be brought up to date", { repo: targetRepo, error });
		}
	}
}

/** publishing → announcing: one commit a target repo, readers see all of it or nothing. */
export const publishStep: Step = async (context, work) => {
	const { database, ports, clock, owner } = context;
	const { job } = work;
	const variants = await listVariantsOfJob(database.handle, job.id);
	const verified = variants.filter((variant) => variant.state === "verified");
	let published = variants.filter((variant) => variant.state === "published").length;
	let firstRefusal = variants.find((variant) => variant.refusal !== null)?.refusal ?? null;
	const reusing = await publishReused(context, job, variants);
	if (reusing.vanished.length > 0) return await rebuild(context, job, reusing.vanished);
	published += reusing.published;
	firstRefusal ??= reusing.refusal;
	const newestSha = await newestCommit(context, job);
	if (verified.length > 0) {
		const files = await stagedFiles(
			context,
			job,
			variants.filter((variant) => variant.state !== "published"),
		);
		if (!files.ok) return { kind: "fail", refusal: files.refusal };
		const targets = Map.groupBy(verified, (variant) => variant.targetRepo);
		for (const [targetRepo, group] of targets) {
			const bundle = group.map((variant): VariantFiles => {
				if (variant.manifest === null) throw new Error(`The verified variant ${variant.recipe} has no manifest.`);
				return { variant, manifest: variant.manifest, directory: files.directoryOf(variant) };
			});
			const ours = new Set(group.map((variant) => variant.id));
			const publishedBefore = await listVariantsOfSource(database.handle, job.sourceRepo, { publishedOnly: true });
			// The job's other variants are verified and follow within seconds: a card that left them out would stay so.
			const others = verified.filter((variant) => !publishedBefore.some(({ id }) => id === variant.id));
			const siblings = [...publishedBefore, ...others].filter((sibling) => !ours.has(sibling.id));
			await addPublishedRepo(database.handle, { repo: targetRepo, sourceRepo: job.sourceRepo });
			const publication = await ports.publish({ job, targetRepo, variants: bundle, siblings, newestSha });
			if (publication.ok) {
				const { targetSha } = publication;
				context.log.info("Variants were published", { job: job.id, repo: publication.targetRepo, sha: targetSha });
			}
			await database.transaction(async (tx) => {
				const note = publication.ok
					? `${publication.targetRepo}: published as ${publication.targetSha.slice(0, 12)}.`
					: `${targetRepo}: refused. ${publication.refusal.message}`;
				const held = await appendNotes(tx, { job, owner, notes: [note], now: clock.now() });
				if (!held) throw new StaleJobError(`Job ${job.id} moved on while it was published.`);
				for (const variant of group) {
					if (publication.ok) {
						const { targetSha } = publication;
						await addPublishedRepo(tx, { repo: publication.targetRepo, sourceRepo: job.sourceRepo });
						const placed = { ...variant, targetRepo: publication.targetRepo };
						await publishVariantRow(tx, { variant: placed, targetSha, now: clock.now() });
					} else {
						await setVariantState(tx, { id: variant.id, state: "failed", refusal: publication.refusal });
					}
				}
			});
			if (publication.ok) published += group.length;
			else firstRefusal ??= publication.refusal;
		}
	}
	if (published === 0) {
		return {
			kind: "fail",
			refusal: firstRefusal ?? {
				code: "internal",
				message: "There was nothing to publish.",
				remedy: "Retry the job.",
			},
		};
	}
	if (newestSha === job.sourceSha) await refreshOtherCards(context, job);
	const moved = await advance(context, job, "published", {
		statusText: `Published ${published} of ${variants.length}.`,
		set: firstRefusal === null ? {} : { refusal: firstRefusal },
	});
	return { kind: "moved", job: moved };
};
