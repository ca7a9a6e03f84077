import { listFiles } from "@huggingface/hub";
import { PermanentError } from "../errors.ts";
import type { HubAccess, RepoKind } from "./hub-access.ts";

export type RepoFile = {
	readonly path: string;
	readonly size: number;
	/** Of a file in large-file storage; `null` for one that git keeps, whose `gitOid` is then its content's. */
	readonly sha256: string | null;
	/** SHA-1 of the git blob, of the pointer for a large file. */
	readonly gitOid: string | null;
};

const MAXIMUM_FILES = 20_000;

/** Every file of a repo, a model's unless said otherwise, at a revision, or below `path` in it. */
export async function listRepoFiles(
	params: HubAccess & {
		readonly repo: string;
		readonly kind?: RepoKind;
		readonly revision: string;
		readonly path?: string;
	},
): Promise<RepoFile[]> {
	const { repo, kind = "model", revision, path, ...access } = params;
	const files: RepoFile[] = [];
	for await (const entry of listFiles({
		...access,
		repo: { type: kind, name: repo },
		revision,
		recursive: true,
		...(path === undefined ? {} : { path }),
	})) {
		if (entry.type !== "file") continue;
		files.push({
			path: entry.path,
			size: entry.lfs?.size ?? entry.size,
			sha256: entry.lfs?.oid ?? null,
			gitOid: entry.oid ?? null,
		});
		if (files.length > MAXIMUM_FILES) {
			throw new PermanentError({
				code: "too-large",
				message: `The repo holds more than ${MAXIMUM_FILES} files.`,
				remedy: "Move what does not belong to the model to another repo.",
			});
		}
	}
	return files;
}
