import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import type { SourceFile } from "../../verify/source-reader.ts";

/** Stands for the commit of a model in a folder: 40 hex digits of the names and contents of the files that count. */
export async function folderRevision(directory: string, files: readonly SourceFile[]): Promise<string> {
	const hash = createHash("sha256");
	for (const file of [...files].sort((one, other) => (one.path < other.path ? -1 : 1))) {
		hash.update(`${file.path}\0${file.size}\0`);
		for await (const chunk of createReadStream(join(directory, file.path))) hash.update(chunk as Buffer);
	}
	return hash.digest("hex").slice(0, 40);
}
