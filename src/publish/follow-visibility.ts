import type { HubAccess, HubWriteAccess } from "../hub/hub-access.ts";
import { type RepoGating, updateRepoSettings } from "../hub/update-repo-settings.ts";
import { repoSettings } from "./repo-settings.ts";
import { readOriginalCard, readSourceCard } from "./source-card.ts";
import { isStricter } from "./stricter-gating.ts";
import { tighten } from "./tighten.ts";

export type FollowedRepo = { readonly repo: string; readonly tightened: boolean };

type SourceVisibility = {
	/** What the source is called now. */
	readonly name: string;
	/**
	 * A source that is gone, or that the bot may no longer see, counts as private: nobody else sees it either. An adapter
	 * counts as private with its base.
	 */
	readonly private: boolean;
	readonly gated: RepoGating;
	readonly repos: readonly FollowedRepo[];
};

/**
 * Gives published repos the visibility and gating that their source has now. Whatever is too visible is tightened at
 * once; loosened is only what was tightened for the source's sake, since an operator may have closed a repo for reasons
 * of their own.
 */
export async function followVisibility(request: {
	readonly hub: HubWriteAccess;
	readonly reader: HubAccess;
	readonly sourceRepo: string;
	readonly bases: readonly string[];
	readonly repos: readonly FollowedRepo[];
}): Promise<SourceVisibility> {
	const { hub, reader, sourceRepo, bases } = request;
	const card = await readOriginalCard({ ...reader, repo: sourceRepo, bases });
	const source = card === null ? null : { private: card.private, gated: card.gated };
	const repos: FollowedRepo[] = [];
	for (const { repo, tightened } of request.repos) {
		const wanted = source ?? { private: true, gated: false as const };
		if (await tighten({ hub, repo, source: wanted })) {
			repos.push({ repo, tightened: true });
			continue;
		}
		const before = tightened && source !== null ? await repoSettings({ ...hub, repo }) : null;
		const isTooStrict =
			before !== null && ((before.private && !wanted.private) || isStricter(before.gated, wanted.gated));
		if (!isTooStrict) {
			repos.push({ repo, tightened });
			continue;
		}
		const visibility = wanted.private ? "private" : "public";
		await updateRepoSettings({ ...hub, repo, settings: { visibility, gated: wanted.gated } });
		repos.push({ repo, tightened: wanted.private || wanted.gated !== false });
	}
	const own = card ?? (bases.length === 0 ? null : await readSourceCard({ ...reader, repo: sourceRepo }));
	return { name: own?.repo ?? sourceRepo, private: source?.private ?? true, gated: source?.gated ?? false, repos };
}
