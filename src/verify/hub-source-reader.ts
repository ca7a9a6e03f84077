import { RetryableError } from "../errors.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { listRepoFiles, type RepoFile } from "../hub/list-repo-files.ts";
import { SourceAccessError, type SourceReader } from "./source-reader.ts";

/** A Hub repo at one commit, read by ranges: the weights stay where they are. */
export async function hubSourceReader(
	params: HubAccess & { repo: string; sha: string },
): Promise<SourceReader & { readonly files: readonly RepoFile[] }> {
	const { repo, sha, hubUrl, accessToken } = params;
	const send = params.fetch ?? fetch;
	const files = await listRepoFiles({ ...params, revision: sha });
	return {
		files,
		async read(path, start, end) {
			if (end <= start) return new Uint8Array(0);
			const response = await send(
				`${hubUrl}/${repo}/resolve/${sha}/${path.split("/").map(encodeURIComponent).join("/")}`,
				{
					headers: {
						range: `bytes=${start}-${end - 1}`,
						"accept-encoding": "identity",
						...(accessToken === undefined ? {} : { authorization: `Bearer ${accessToken}` }),
					},
				},
			);
			if (response.status === 401 || response.status === 403) {
				await response.body?.cancel();
				throw new SourceAccessError(response.headers.get("x-error-code") ?? `status ${response.status}`);
			}
			// A server that ignores the range would send the whole file; its start serves only when it is asked for.
			if (response.status !== 206 && !(response.status === 200 && start === 0)) {
				await response.body?.cancel();
				throw new RetryableError(`The Hub answered ${response.status} to a read of ${path}.`);
			}
			return readAtMost(response, end - start);
		},
	};
}

async function readAtMost(response: Response, limit: number): Promise<Uint8Array> {
	const buffer = new Uint8Array(limit);
	let filled = 0;
	if (response.body !== null) {
		// Leaving the loop early cancels the stream.
		for await (const chunk of response.body) {
			const part = chunk.subarray(0, limit - filled);
			buffer.set(part, filled);
			filled += part.byteLength;
			if (filled === limit) break;
		}
	}
	return buffer.subarray(0, filled);
}
