import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import type { SourceFacts } from "../records/source.ts";
import type { Handle } from "./database.ts";
import { storableJsonOrNull } from "./storable.ts";
import { insertVariant, publishVariantRow, stageVariant } from "./variants.ts";
import { addPublishedRepo } from "./visibility.ts";

/** A job that ended before this database began, with what the Hub tells of it: somebody published of this commit. */
async function insertFormerJob(
	tx: Handle,
	job: {
		readonly id: string;
		readonly sourceRepo: string;
		readonly sourceSha: string;
		readonly facts: SourceFacts | null;
		readonly at: Date;
	},
): Promise<void> {
	await tx
		.insertInto("jobs")
		.values({
			id: job.id,
			source_repo: job.sourceRepo,
			source_sha: job.sourceSha,
			state: "done",
			runner_handle: null,
			stop_as: null,
			refusal: null,
			status_text: "Done; found on the Hub when the database was rebuilt.",
			facts: storableJsonOrNull(job.facts),
			plan_text: null,
			flavor: null,
			estimate_micro_usd: null,
			held_until: null,
			hint_at: null,
			next_step_at: job.at,
			lease_owner: null,
			lease_until: null,
			outbox_next_at: job.at,
			outbox_lease_owner: null,
			outbox_lease_until: null,
			created_at: job.at,
			updated_at: job.at,
			started_at: null,
			finished_at: job.at,
		})
		.onConflict((conflict) => conflict.column("id").doNothing())
		.execute();
}

export type FormerVariant = {
	readonly id: string;
	readonly jobId: string;
	readonly recipe: Recipe;
	readonly manifest: Manifest;
	readonly targetRepo: string;
	readonly targetSha: string;
	readonly at: Date;
};

/** Writes the variants of one commit as published, with the job that they are of; those that are there stay. */
export async function insertFormerVariants(
	tx: Handle,
	source: { readonly repo: string; readonly sha: string; readonly facts: SourceFacts | null },
	variants: readonly FormerVariant[],
): Promise<void> {
	for (const one of variants) {
		const { id, jobId, recipe, manifest, targetRepo, targetSha, at } = one;
		await insertFormerJob(tx, { id: jobId, sourceRepo: source.repo, sourceSha: source.sha, facts: source.facts, at });
		const variant = await insertVariant(tx, {
			id,
			sourceRepo: source.repo,
			sourceSha: source.sha,
			recipe,
			jobId,
			targetRepo,
			now: at,
		});
		await stageVariant(tx, { id, manifest });
		await publishVariantRow(tx, { variant, targetSha, now: at });
		await addPublishedRepo(tx, { repo: targetRepo, sourceRepo: source.repo });
	}
}
