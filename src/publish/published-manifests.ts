import { downloadFile } from "@huggingface/hub";
import type { HubAccess } from "../hub/hub-access.ts";
import { listRepoFiles, type RepoFile } from "../hub/list-repo-files.ts";
import { Manifest } from "../protocol/manifest.ts";
import { recipeDirectory } from "../protocol/recipe.ts";

/** Where a variant's manifest lies in the repo it is published to. One repo can hold several variants. */
export function manifestPath(recipe: string): string {
	return `manifests/${recipeDirectory(recipe)}.json`;
}

export type PublishedManifest = {
	readonly path: string;
	readonly manifest: Manifest;
	/** As stored, to compare byte for byte. */
	readonly text: string;
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
			manifests.push({ path: file.path, manifest: parsed.data, text });
		}
	}
	return { files, manifests };
}

function parseJson(text: string): unknown {
	try {
		return JSON.parse(text);
	} catch {
		return null;
	}
}
