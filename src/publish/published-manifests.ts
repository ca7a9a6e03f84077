import { downloadFile } from "@huggingface/hub";
import type { HubAccess } from "../hub/hub-access.ts";
import { listRepoFiles, type RepoFile } from "../hub/list-repo-files.ts";
import { parseJson } from "../parse-json.ts";
import { Manifest } from "../protocol/manifest.ts";
import { recipeDirectory } from "../protocol/recipe.ts";
import { ownVersionPath } from "./shared-files.ts";

/** Where a variant's manifest lies in the repo it is published to. One repo can hold several variants. */
export function manifestPath(recipe: string): string {
	return `manifests/${recipeDirectory(recipe)}.json`;
}

export type PublishedManifest = {
	readonly path: string;
	readonly manifest: Manifest;
	/** As stored, to compare byte for byte. */
	readonly text: string;
	/** The listed file of each of the manifest's files: the variant's own version where the root has another one. */
	readonly files: readonly { readonly path: string; readonly listed: RepoFile }[];
};

const MANIFEST = /^manifests\/[A-Za-z0-9.-]+\.json$/;
const MAXIMUM_MANIFEST_BYTES = 64 * 2 ** 20;

/** The manifests at a repo's revision, with every file there. A file that is no manifest of ours is passed over. */
export async function readPublishedManifests(
	params: HubAccess & { readonly repo: string; readonly revision: string },
): Promise<{ readonly files: readonly RepoFile[]; readonly manifests: readonly PublishedManifest[] }> {
	const { repo, revision, ...access } = params;
	const files = await listRepoFiles({ ...access, repo, revision });
	const manifests: PublishedManifest[] = [];
	const byPath = new Map(files.map((file) => [file.path, file]));
	for (const file of files) {
		if (!MANIFEST.test(file.path) || file.size > MAXIMUM_MANIFEST_BYTES) continue;
		const blob = await downloadFile({
			...access,
			repo: { type: "model", name: repo },
			path: file.path,
			revision,
			xet: false,
		});
		const text = (await blob?.text()) ?? "";
		const parsed = Manifest.safeParse(parseJson(text));
		if (parsed.success && manifestPath(parsed.data.recipe) === file.path) {
			const own = parsed.data.files.flatMap(({ path }) => {
				const listed = byPath.get(ownVersionPath(file.path, path)) ?? byPath.get(path);
				return listed === undefined ? [] : [{ path, listed }];
			});
			manifests.push({ path: file.path, manifest: parsed.data, text, files: own });
		}
	}
	return { files, manifests };
}
