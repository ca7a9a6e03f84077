import { createRepo, modelInfo } from "@huggingface/hub";
import { PermanentError, RetryableError } from "../errors.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";

export type RepoState = { readonly sha: string; readonly private: boolean };

/** The commit and visibility of a model repo, `null` where there is none that the token may see. */
export async function repoState(
	params: HubAccess & { readonly accessToken: string; readonly repo: string },
): Promise<RepoState | null> {
	const { repo, ...access } = params;
	try {
		const info = await modelInfo({ ...access, name: repo, revision: "main", additionalFields: ["sha"] });
		return { sha: String(info.sha), private: info.private };
	} catch (error) {
		switch (hubStatus(error)) {
			case 404:
				return null;
			// The answer to a token that is not valid, whatever there is.
			case 401:
				throw new PermanentError(
					{
						code: "not-permitted",
						message: `The Hub does not accept the token that the bot looks at ${repo} with.`,
						remedy: "The operator sets a valid YAQA_BOT_HUB_TOKEN, then retries the job.",
					},
					{ cause: error },
				);
			default:
				throw error;
		}
	}
}

/** Creates a private model repo; that it is there already is fine, whoever made it: look at `repoState`. */
export async function createPrivateRepo(
	params: HubAccess & { readonly accessToken: string; readonly repo: string },
): Promise<RepoState> {
	const { repo, ...access } = params;
	try {
		await createRepo({ ...access, repo: { type: "model", name: repo }, visibility: "private" });
	} catch (error) {
		switch (hubStatus(error)) {
			case 409:
				break;
			case 401:
			case 402:
			case 403:
				throw new PermanentError(
					{
						code: "not-permitted",
						message: `The bot's token may not create ${repo}.`,
						remedy: `The operator sees that the Hub has ${repo.split("/")[0]} (hub.namespace) and gives the publishing token write access to it, then retries the job; \`yaqa-bot doctor\` tells which of the two is missing.`,
					},
					{ cause: error },
				);
			default:
				throw error;
		}
	}
	const state = await repoState({ ...access, repo });
	if (state === null) throw new RetryableError(`${repo} was created, but the Hub does not show it yet.`);
	return state;
}
