import { RetryableError } from "../errors.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { type RepoGating, updateRepoSettings } from "../hub/update-repo-settings.ts";
import { repoSettings } from "./repo-settings.ts";
import { isStricter } from "./stricter-gating.ts";

/**
 * Makes a repo no more visible than its source, and nothing more visible than it is. Done before anything is put there:
 * a failure then leaves nothing behind that somebody should not see. Answers whether anything had to change.
 */
export async function tighten(request: {
	readonly hub: HubWriteAccess;
	readonly repo: string;
	readonly source: { readonly private: boolean; readonly gated: RepoGating };
}): Promise<boolean> {
	const { hub, repo, source } = request;
	const before = await repoSettings({ ...hub, repo });
	if (before === null) return false;
	const settings = {
		...(source.private && !before.private ? { visibility: "private" as const } : {}),
		...(isStricter(source.gated, before.gated) ? { gated: source.gated } : {}),
	};
	if (Object.keys(settings).length === 0) return false;
	await updateRepoSettings({ ...hub, repo, settings });
	const after = await repoSettings({ ...hub, repo });
	if (after === null || (source.private && !after.private) || isStricter(source.gated, after.gated)) {
		throw new RetryableError(`${repo} did not take over the visibility of its source; nothing was put there.`);
	}
	return true;
}
