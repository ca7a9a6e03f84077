import { lstat } from "node:fs/promises";
import { appendNotes } from "../../db/jobs.ts";
import { listVariantsOfJob, setVariantState, verifyVariantRow } from "../../db/variants.ts";
import type { Refusal } from "../../errors.ts";
import { storedRecipe } from "../../protocol/recipe.ts";
import { stagedFiles } from "./staged-files.ts";
import { advance, StaleJobError, type Step } from "./step-context.ts";

/** verifying → publishing: what the Hub gives back is checked, not what the runner wrote. */
export const verifyStep: Step = async (context, work) => {
	const { database, ports, clock, owner, signal } = context;
	const { job } = work;
	const variants = (await listVariantsOfJob(database.handle, job.id)).filter((one) => one.state !== "published");
	const waiting = variants.filter((variant) => variant.state === "staged");
	const files = await stagedFiles(context, job, variants);
	if (!files.ok) return { kind: "fail", refusal: files.refusal };
	const verificationPath = await lstat(files.verificationPath).then(
		() => files.verificationPath,
		() => null,
	);
	const passed = variants.filter((variant) => variant.state === "verified").map((variant) => variant.id);
	let firstRefusal: Refusal | null = variants.find((variant) => variant.refusal !== null)?.refusal ?? null;
	for (const variant of waiting) {
		if (variant.manifest === null) throw new Error(`The staged variant ${variant.recipe} has no manifest.`);
		signal.throwIfAborted();
		const verdict = await ports.verify({
			directory: files.directoryOf(variant),
			manifest: variant.manifest,
			recipe: storedRecipe(variant.recipe),
			verificationPath,
			signal,
		});
		const refusal = verdict.ok ? null : verdict.refusal;
		const notes = verdict.checks.map((check) => `${variant.recipe}: ${check}`);
		if (refusal !== null) notes.push(`${variant.recipe}: refused. ${refusal.message}`);
		await database.transaction(async (tx) => {
			const held = await appendNotes(tx, { job, owner, notes, now: clock.now() });
			if (!held) throw new StaleJobError(`Job ${job.id} moved on while it was verified.`);
			if (verdict.ok) {
				// An engine's configuration is not always in the container: what memory it takes is said with the files.
				const manifest = { ...verdict.manifest, shape: work.facts?.shape ?? null };
				await verifyVariantRow(tx, { id: variant.id, manifest });
			} else await setVariantState(tx, { id: variant.id, state: "failed", refusal });
		});
		if (refusal === null) passed.push(variant.id);
		else firstRefusal ??= refusal;
	}
	if (passed.length === 0) {
		return {
			kind: "fail",
			refusal: firstRefusal ?? {
				code: "internal",
				message: "There was nothing to verify.",
				remedy: "Retry the job.",
			},
		};
	}
	const moved = await advance(context, job, "verified", { statusText: "Publishing." });
	return { kind: "moved", job: moved };
};
