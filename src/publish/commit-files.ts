import { openAsBlob } from "node:fs";
import { type CommitOperation, commit } from "@huggingface/hub";
import { PermanentError, RetryableError } from "../errors.ts";
import type { HubAccess, RepoKind } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";

export type FileContent = { readonly path: string } & (
	| { readonly from: "disk"; readonly source: string }
	| { readonly from: "memory"; readonly content: string | Uint8Array<ArrayBuffer> }
);

/** One commit on main with all of it, or nothing. `parent` must still be the head: else somebody else wrote meanwhile. */
export async function commitFiles(
	params: HubAccess & {
		readonly accessToken: string;
		readonly repo: string;
		readonly kind?: RepoKind;
		readonly parent: string;
		readonly title: string;
		readonly files: readonly FileContent[];
		readonly deleted?: readonly string[];
	},
): Promise<string> {
	const { repo, kind = "model", parent, title, files, deleted = [], ...access } = params;
	const operations: CommitOperation[] = deleted.map((path) => ({ operation: "delete", path }));
	for (const file of files) {
		operations.push({
			operation: "addOrUpdate",
			path: file.path,
			content: file.from === "disk" ? await openAsBlob(file.source) : new Blob([file.content]),
		});
	}
	try {
		const done = await commit({
			...access,
			repo: { type: kind, name: repo },
			title,
			operations,
			branch: "main",
			parentCommit: parent,
		});
		if (done === undefined) throw new RetryableError(`The Hub did not name the commit it made in ${repo}.`);
		return done.commit.oid;
	} catch (error) {
		switch (hubStatus(error)) {
			case 409:
			case 412:
				throw new RetryableError(`${repo} was written to by somebody else meanwhile.`, { cause: error });
			case 401:
			case 403:
				throw new PermanentError(
					{
						code: "not-permitted",
						message: `The bot's token may not write to ${repo}.`,
						remedy: "The operator gives the publishing token write access to that namespace, then retries the job.",
					},
					{ cause: error },
				);
			default:
				throw error;
		}
	}
}
