import type { Handle } from "./database.ts";

export type StoredSketch = { readonly key: string; readonly directory: string };

export async function findSketch(
	handle: Handle,
	wanted: { readonly repo: string; readonly sha: string; readonly fingerprint: string },
): Promise<StoredSketch | null> {
	const row = await handle
		.selectFrom("sketches")
		.select(["key", "directory"])
		.where("source_repo", "=", wanted.repo)
		.where("source_sha", "=", wanted.sha)
		.where("fingerprint", "=", wanted.fingerprint)
		.executeTakeFirst();
	return row ?? null;
}

export async function storeSketch(
	handle: Handle,
	sketch: StoredSketch & {
		readonly repo: string;
		readonly sha: string;
		readonly fingerprint: string;
		readonly now: Date;
	},
): Promise<void> {
	await handle
		.insertInto("sketches")
		.values({
			source_repo: sketch.repo,
			source_sha: sketch.sha,
			fingerprint: sketch.fingerprint,
			key: sketch.key,
			directory: sketch.directory,
			created_at: sketch.now,
		})
		.onConflict((conflict) =>
			conflict
				.columns(["source_repo", "source_sha", "fingerprint"])
				.doUpdateSet({ key: sketch.key, directory: sketch.directory, created_at: sketch.now }),
		)
		.execute();
}
