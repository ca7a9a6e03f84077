import { mkdir } from "node:fs/promises";
import { diskFull, isDiskFull } from "../disk-full.ts";
import type { Refusal } from "../errors.ts";
import { downloadRepoFiles } from "../hub/download-repo-files.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { listRepoFiles } from "../hub/list-repo-files.ts";
import type { SourceLimits } from "./inspect-files.ts";
import { inspectSource } from "./inspect-source.ts";

/**
 * Fills `directory` with what a runner needs of a commit. The commit is inspected again first: what was not looked at
 * is not fetched, and only files that the inspection names are.
 */
export async function fetchSource(
	params: HubAccess & {
		readonly repo: string;
		readonly sha: string;
		readonly directory: string;
		readonly limits: SourceLimits;
		readonly signal: AbortSignal;
	},
): Promise<{ readonly ok: true } | { readonly ok: false; readonly refusal: Refusal }> {
	const { repo, sha, directory, limits, signal, ...access } = params;
	const inspection = await inspectSource({ ...access, repo, revision: sha, limits });
	if (!inspection.ok) return { ok: false, refusal: inspection.refusal };
	const wanted = new Set(inspection.facts.files.map((file) => file.path));
	const files = (await listRepoFiles({ ...access, repo, revision: sha })).filter((file) => wanted.has(file.path));
	try {
		await mkdir(directory, { recursive: true });
		await downloadRepoFiles({ ...access, repo, revision: sha, files, directory, signal });
		return { ok: true };
	} catch (error) {
		if (!isDiskFull(error)) throw error;
		return { ok: false, refusal: diskFull("the source") };
	}
}
