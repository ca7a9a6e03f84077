import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";

/** Hex SHA-256 of a file's content. */
export async function fileSha256(path: string): Promise<string> {
	const hash = createHash("sha256");
	for await (const chunk of createReadStream(path)) hash.update(chunk);
	return hash.digest("hex");
}

/** Hex SHA-1 that git gives the file as a blob: what the Hub lists for files outside large-file storage. */
async function gitBlobOid(path: string): Promise<string> {
	const hash = createHash("sha1").update(`blob ${(await stat(path)).size}\0`);
	for await (const chunk of createReadStream(path)) hash.update(chunk);
	return hash.digest("hex");
}

/** Whether the file at `path` is, byte for byte, the one the Hub lists. */
export async function isRepoFile(
	path: string,
	listed: { readonly size: number; readonly sha256: string | null; readonly gitOid: string | null },
): Promise<boolean> {
	const size = await stat(path).then(
		(found) => (found.isFile() ? found.size : null),
		() => null,
	);
	if (size !== listed.size) return false;
	if (listed.sha256 !== null) return (await fileSha256(path)) === listed.sha256;
	return listed.gitOid === null || (await gitBlobOid(path)) === listed.gitOid;
}
