import type { HubAccess } from "../hub/hub-access.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { readSourceCard } from "./source-card.ts";

/**
 * A manifest of another source than this one, or `null`. A name that the Hub leads to the same repo as this source's is
 * a former name of it: what was made under that is no other model's.
 */
export async function findForeign(request: {
	readonly reader: HubAccess;
	readonly sourceRepo: string;
	readonly manifests: readonly Manifest[];
}): Promise<Manifest | null> {
	const { reader, sourceRepo, manifests } = request;
	const names = new Set(manifests.map((manifest) => manifest.source.repo));
	names.delete(sourceRepo);
	if (names.size === 0) return null;
	const now = await readSourceCard({ ...reader, repo: sourceRepo });
	for (const name of names) {
		const other = await readSourceCard({ ...reader, repo: name });
		if (now === null || other === null || other.repo !== now.repo) {
			return manifests.find((manifest) => manifest.source.repo === name) ?? null;
		}
	}
	return null;
}
