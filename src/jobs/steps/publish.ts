import { appendNotes } from "../../db/jobs.ts";
import { listVariantsOfJob, listVariantsOfSource, publishVariantRow, setVariantState } from "../../db/variants.ts";
import type { VariantFiles } from "../ports.ts";
import { stagedFiles } from "./staged-files.ts";
import { advance, StaleJobError, type Step } from "./step-context.ts";

/** publishing → announcing: one commit a target repo, readers see all of it or nothing. */
export const publishStep: Step = async (context, work) => {
	const { database, ports, clock, owner } = context;
	const { job } = work;
	const variants = await listVariantsOfJob(database.handle, job.id);
	const verified = variants.filter((variant) => variant.state === "verified");
	let published = variants.filter((variant) => variant.state === "published").length;
	let firstRefusal = variants.find((variant) => variant.refusal !== null)?.refusal ?? null;
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
			const publication = await ports.publish({ job, targetRepo, variants: bundle, siblings });
			await database.transaction(async (tx) => {
				const note = publication.ok
					? `${targetRepo}: published as ${publication.targetSha.slice(0, 12)}.`
					: `${targetRepo}: refused. ${publication.refusal.message}`;
				const held = await appendNotes(tx, { job, owner, notes: [note], now: clock.now() });
				if (!held) throw new StaleJobError(`Job ${job.id} moved on while it was published.`);
				for (const variant of group) {
					if (publication.ok) {
						await publishVariantRow(tx, { variant, targetSha: publication.targetSha, now: clock.now() });
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
	const moved = await advance(context, job, "published", {
		statusText: `Published ${published} of ${variants.length}.`,
		set: firstRefusal === null ? {} : { refusal: firstRefusal },
	});
	return { kind: "moved", job: moved };
};
