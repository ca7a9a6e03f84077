import { createTag } from "../hub/create-tag.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { listRefs } from "../hub/list-refs.ts";
import { publicationTag } from "./publication-tag.ts";
import { readPublishedManifests } from "./published-manifests.ts";

/**
 * Names the published commit after the source's, so that a link or a `--revision` with that name means the same bytes
 * for ever: a tag never moves, and what is published of the same commit later gets the next number. Called again after
 * a kill, it finds what it made: the tag on this very commit, or one whose manifests hold all that was wanted.
 */
export async function tagPublication(request: {
	readonly hub: HubWriteAccess;
	readonly repo: string;
	readonly sha: string;
	readonly sourceSha: string;
	/** The texts of the manifests that were published, by path. */
	readonly wanted: ReadonlyMap<string, string>;
}): Promise<void> {
	const { hub, repo, sha, sourceSha, wanted } = request;
	const { tags } = await listRefs({ ...hub, repo });
	const known = new Map(tags.map(({ name, targetCommit }) => [name, targetCommit]));
	for (let number = 1; ; number++) {
		const tag = publicationTag(sourceSha, number);
		const target = known.get(tag);
		if (target === sha) return;
		if (target !== undefined) {
			const { manifests } = await readPublishedManifests({ ...hub, repo, revision: target });
			const texts = new Map(manifests.map(({ path, text }) => [path, text]));
			if ([...wanted].every(([path, text]) => texts.get(path) === text)) return;
			continue;
		}
		if ((await createTag({ ...hub, repo, tag, revision: sha })) === "created") return;
	}
}
