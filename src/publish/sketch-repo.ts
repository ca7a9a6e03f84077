import { createRepo, datasetInfo, downloadFile } from "@huggingface/hub";
import { PermanentError, RetryableError } from "../errors.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listRepoFiles, type RepoFile } from "../hub/list-repo-files.ts";
import { parseJson } from "../parse-json.ts";
import { damaged } from "./read-sketch.ts";
import { SketchEntry } from "./sketch-card.ts";

export type Writer = HubAccess & { readonly accessToken: string };
export type Visibility = "private" | "public";

export const INDEX = "index.jsonl";
const MAXIMUM_INDEX_BYTES = 16 * 1024 * 1024;

function designationOf(repo: string) {
	return { type: "dataset", name: repo } as const;
}

/** `null`: it is not there, or not to be read. */
export async function head(
	access: HubAccess,
	repo: string,
): Promise<{ readonly sha: string; readonly private: boolean } | null> {
	try {
		const info = await datasetInfo({ ...access, name: repo, revision: "main", additionalFields: ["sha"] });
		return { sha: String(info.sha), private: info.private };
	} catch (error) {
		// A private repo that this token may not read looks like none.
		if ([401, 403, 404].includes(hubStatus(error) ?? 0)) return null;
		throw error;
	}
}

/** The files of one sketch. */
export async function listFolder(
	access: HubAccess,
	place: { readonly repo: string; readonly revision: string; readonly path: string },
): Promise<readonly RepoFile[]> {
	try {
		return await listRepoFiles({ ...access, ...place, kind: "dataset" });
	} catch (error) {
		if (hubStatus(error) === 404) return [];
		throw error;
	}
}

/** The lines of the index that are ours. */
export async function readIndex(writer: Writer, repo: string, revision: string): Promise<readonly SketchEntry[]> {
	const blob = await downloadFile({ ...writer, repo: designationOf(repo), path: INDEX, revision, xet: false });
	if (blob === null) return [];
	if (blob.size > MAXIMUM_INDEX_BYTES) throw damaged(`${INDEX} of ${repo} is too long`);
	return (await blob.text()).split("\n").flatMap((line) => {
		const entry = SketchEntry.safeParse(parseJson(line));
		// Somebody's own line is not kept by us.
		return entry.success ? [entry.data] : [];
	});
}

/** Makes the repo; that somebody else made it meanwhile is fine. */
async function create(writer: Writer, repo: string, visibility: Visibility): Promise<void> {
	try {
		await createRepo({ ...writer, repo: designationOf(repo), visibility });
	} catch (error) {
		const status = hubStatus(error);
		if (status === 401 || status === 402 || status === 403) {
			throw new PermanentError(
				{
					code: "not-permitted",
					message: `The bot's token may not create ${repo}.`,
					remedy: "The operator gives the publishing token write access to the namespace of sketches.repo.",
				},
				{ cause: error },
			);
		}
		if (status !== 409) throw error;
	}
}

/** The repo as it stands, made where there is none. Never more visible than `visibility`. */
export async function openForWriting(
	writer: Writer,
	repo: string,
	visibility: Visibility,
): Promise<{ readonly sha: string; readonly private: boolean }> {
	let state = await head(writer, repo);
	if (state === null) {
		await create(writer, repo, visibility);
		state = await head(writer, repo);
		if (state === null) throw new RetryableError(`${repo} was created, but the Hub does not show it yet.`);
	}
	if (visibility === "private" && !state.private) {
		throw new PermanentError({
			code: "not-permitted",
			message: `${repo} is public; sketches are to be kept in private.`,
			remedy: "The operator makes that repo private, or sets sketches.visibility to public.",
		});
	}
	return state;
}
