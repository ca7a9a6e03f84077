import { getJob, lockJob, lockSource, moveJob } from "../db/jobs.ts";
import { setSourceRefusal } from "../db/status-discussions.ts";
import {
	dropReuse,
	insertVariant,
	listVariantsOfJob,
	listVariantsOfSourceCommit,
	resetVariantsOfJob,
} from "../db/variants.ts";
import { recipeHash } from "../protocol/recipe.ts";
import type { JobsContext } from "./context.ts";
import { inspectSettled } from "./inspect-settled.ts";
import type { JobChange } from "./job-change.ts";
import { cleanUpJob } from "./steps/clean-up-job.ts";
import { targetOf } from "./target-of.ts";
import { transition } from "./transitions.ts";
import { wakeJob } from "./wake-job.ts";
import { recipesOfRules } from "./watch-rules.ts";
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
		owned.length > 0 ? null : await inspectSettled(context, { repo: job.sourceRepo, revision: job.sourceSha });
	if (inspection !== null && !inspection.ok) return { ok: false, reason: inspection.refusal.message };
	// What the last attempt left behind is found by its fence, which the next dispatch changes.
	await cleanUpJob(context, job);
	const moved = await database.transaction(async (tx) => {
		await lockSource(tx, job.sourceRepo);
		const current = await lockJob(tx, id);
		if (current === null || current.job.state !== job.state || current.job.fence !== job.fence) return null;
		if (current.job.sourceRepo !== job.sourceRepo) return null;
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
			await dropReuse(tx, id);
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
