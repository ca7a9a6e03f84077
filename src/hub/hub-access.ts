/** Where the Hub is and who asks. Every function of this folder takes one, as those of `@huggingface/hub` do. */
export type HubAccess = {
	/** Origin of the Hub, without a slash at its end. */
	readonly hubUrl: string;
	readonly accessToken?: string;
	/** From `createHubFetch`: retries, time limits, caps, the allow-list. */
	readonly fetch?: typeof fetch;
};

/** With a token: for what only a signed-in account may do. */
export type HubWriteAccess = HubAccess & { readonly accessToken: string };

/** Repos that this project lists and downloads from. */
export type RepoKind = "model" | "dataset";

/** The address of a repo's API, `repo` being `namespace/name`. */
export function modelApiPath(repo: string, rest = ""): string {
	return `/api/models/${repo.split("/").map(encodeURIComponent).join("/")}${rest}`;
}
