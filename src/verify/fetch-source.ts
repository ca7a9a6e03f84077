import { mkdir } from "node:fs/promises";
import { diskFull, isDiskFull } from "../disk-full.ts";
import type { Refusal } from "../errors.ts";
import { downloadRepoFiles } from "../hub/download-repo-files.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { listRepoFiles } from "../hub/list-repo-files.ts";
import type { SourceLimits } from "./inspect-files.ts";
import { inspectSource } from "./inspect-source.ts";
import type { SourceFile } from "./source-reader.ts";

/**
 * Fills `directory` with what a runner needs of a commit, and of an adapter's base its folder. The commit is inspected
 * again first: what was not looked at is not fetched, and only files that the inspection names are.
 */
export async function fetchSource(
	params: HubAccess & {
		readonly repo: string;
		readonly sha: string;
		readonly directory: string;
		/** Of an adapter: its base's commit as it was settled, and where that goes. */
		readonly base?: { readonly sha: string; readonly directory: string } | null;
		readonly limits: SourceLimits;
		readonly signal: AbortSignal;
	},
): Promise<{ readonly ok: true } | { readonly ok: false; readonly refusal: Refusal }> {
	const { repo, sha, directory, base = null, limits, signal, ...access } = params;
	const inspection = await inspectSource({ ...access, repo, revision: sha, baseSha: base?.sha ?? null, limits });
	if (!inspection.ok) return { ok: false, refusal: inspection.refusal };
	const { facts } = inspection;
	if ((facts.base === null) !== (base === null)) {
		throw new Error(`${repo} is an adapter and is fetched without its base, or the other way round.`);
	}
	const snapshots = [{ repo, sha, files: facts.files, directory }];
	if (facts.base !== null && base !== null) snapshots.push({ ...facts.base, directory: base.directory });
	try {
		for (const snapshot of snapshots) await download({ ...access, ...snapshot, signal });
		return { ok: true };
	} catch (error) {
		if (!isDiskFull(error)) throw error;
		return { ok: false, refusal: diskFull("the source") };
	}
}

async function download(
	params: HubAccess & {
		readonly repo: string;
		readonly sha: string;
		readonly files: readonly SourceFile[];
		readonly directory: string;
		readonly signal: AbortSignal;
	},
): Promise<void> {
	const { repo, sha, directory, signal, ...access } = params;
	const wanted = new Set(params.files.map((file) => file.path));
	const files = (await listRepoFiles({ ...access, repo, revision: sha })).filter((file) => wanted.has(file.path));
	await mkdir(directory, { recursive: true });
	await downloadRepoFiles({ ...access, repo, revision: sha, files, directory, signal });
}
