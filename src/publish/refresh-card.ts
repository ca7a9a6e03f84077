import { downloadRepoFile } from "../hub/download-repo-file.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { commitFiles } from "./commit-files.ts";
import { repoState } from "./create-private-repo.ts";
import { findForeign } from "./find-foreign.ts";
import { readPublishedManifests } from "./published-manifests.ts";
import { CARD_PATH, cardOf, elsewhereOf } from "./repo-card.ts";
import { basesOf, readOriginalCard } from "./source-card.ts";

/**
 * Writes the card of a repo anew, so that it says which of its variants are of an older commit, and what the source is
 * called now. Equal cards cost no commit.
 */
export async function refreshCard(request: {
	readonly hub: HubAccess & { readonly accessToken: string };
	readonly reader: HubAccess;
	readonly targetRepo: string;
	readonly sourceRepo: string;
	/** `null`: not known. */
	readonly newestSha: string | null;
	readonly siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[];
}): Promise<void> {
	const { hub, reader, targetRepo: repo, sourceRepo, newestSha, siblings } = request;
	const state = await repoState({ ...hub, repo });
	if (state === null) return;
	const head = await readPublishedManifests({ ...hub, repo, revision: state.sha });
	const manifests = head.manifests.map(({ manifest }) => manifest);
	const source = await readOriginalCard({ ...reader, repo: sourceRepo, bases: basesOf(manifests) });
	if (source === null) return;
	// A repo that is not ours alone is left alone.
	if (manifests.length === 0 || (await findForeign({ reader, sourceRepo, manifests })) !== null) return;
	const card = await cardOf({ hub, repo, source, manifests, elsewhere: elsewhereOf(repo, siblings), newestSha });
	const before = new TextDecoder().decode(await downloadRepoFile(hub, repo, state.sha, CARD_PATH));
	if (before === card) return;
	await commitFiles({
		...hub,
		repo,
		parent: state.sha,
		title: `Bring the card up to date with ${sourceRepo}${newestSha === null ? "" : ` at ${newestSha.slice(0, 8)}`}`,
		files: [{ path: CARD_PATH, from: "memory", content: card }],
	});
}
