import { downloadFile } from "@huggingface/hub";
import { MAXIMUM_SOURCE_SETTINGS_BYTES, SOURCE_SETTINGS_FILE } from "../config/source-settings.ts";
import { getDiscussion } from "./get-discussion.ts";
import type { HubAccess } from "./hub-access.ts";
import { hubStatus } from "./hub-request-error.ts";

const ABSENT: ReadonlySet<number> = new Set([401, 403, 404, 410]);

async function unlessAbsent<Result>(work: () => Promise<Result>): Promise<Result | null> {
	try {
		return await work();
	} catch (error) {
		if (ABSENT.has(hubStatus(error) ?? 0)) return null;
		throw error;
	}
}

/** The owner's settings file at a commit, and whether the bot's status discussion was closed. */
export async function readOwnerSettings(
	params: HubAccess & { readonly repo: string; readonly sha: string; readonly discussion: number | null },
): Promise<{ readonly settings: string | null; readonly closed: boolean }> {
	const { repo, sha, discussion: num, ...access } = params;
	const settings = await unlessAbsent(async () => {
		const file = await downloadFile({
			...access,
			repo: { type: "model", name: repo },
			path: SOURCE_SETTINGS_FILE,
			revision: sha,
		});
		// One byte more than allowed is enough for the reader to see that it is too large.
		return file === null ? null : await file.slice(0, MAXIMUM_SOURCE_SETTINGS_BYTES + 1).text();
	});
	const discussion = num === null ? null : await unlessAbsent(() => getDiscussion({ ...access, repo, num }));
	return { settings, closed: discussion?.status === "closed" };
}
