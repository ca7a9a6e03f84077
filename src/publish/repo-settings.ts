import { modelInfo } from "@huggingface/hub";
import { z } from "zod";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import type { RepoGating } from "../hub/update-repo-settings.ts";

const Info = z.object({
	private: z.boolean(),
	gated: z.union([z.literal(false), z.literal("auto"), z.literal("manual")]).catch(false),
});

/** Visibility and gating of a repo of the bot's; `null`: there is none. */
export async function repoSettings(
	params: HubWriteAccess & { readonly repo: string },
): Promise<{ readonly private: boolean; readonly gated: RepoGating } | null> {
	const { repo, ...access } = params;
	try {
		return Info.parse(await modelInfo({ ...access, name: repo }));
	} catch (error) {
		if (hubStatus(error) === 404) return null;
		throw error;
	}
}
