import { isOfOneCommit } from "../protocol/one-commit.ts";

/** The newest commit of a source that work was done for: jobs for a commit that somebody named do not tell of the newest. */
export function newestCommitOf(
	jobs: readonly { readonly id: string; readonly sourceSha: string }[],
	variants: readonly { readonly jobId: string; readonly targetRepo: string }[],
): string | null {
	const beside = new Set(variants.filter(({ targetRepo }) => isOfOneCommit(targetRepo)).map(({ jobId }) => jobId));
	return jobs.find(({ id }) => !beside.has(id))?.sourceSha ?? null;
}
