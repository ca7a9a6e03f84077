import type { HubAccess } from "../hub/hub-access.ts";
import { listHeads } from "../hub/list-heads.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { readPublishedManifests } from "./published-manifests.ts";

/** Every variant that the heads of a namespace's repos hold, by their manifests. */
export async function* listPublished(
	params: HubAccess & { readonly namespace: string },
): AsyncGenerator<{ readonly repo: string; readonly sha: string; readonly manifest: Manifest }> {
	const { namespace, ...access } = params;
	for await (const { repo, sha } of listHeads({ ...access, of: { kind: "namespace", namespace } })) {
		const { manifests } = await readPublishedManifests({ ...access, repo, revision: sha });
		for (const { manifest } of manifests) yield { repo, sha, manifest };
	}
}
