import { open, readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import type { SourceFile, SourceReader } from "./source-reader.ts";

const MAXIMUM_FILES = 20_000;

/** A model in a folder on this machine. Links are not followed: what they lead to is not part of the folder. */
export async function folderSourceReader(directory: string): Promise<SourceReader> {
	const entries = await readdir(directory, { recursive: true, withFileTypes: true });
	const files: SourceFile[] = [];
	for (const entry of entries.slice(0, MAXIMUM_FILES)) {
		if (!entry.isFile()) continue;
		const path = join(entry.parentPath, entry.name);
		const handle = await open(path, "r");
		try {
			files.push({ path: relative(directory, path).split(sep).join("/"), size: (await handle.stat()).size });
		} finally {
			await handle.close();
		}
	}
	return {
		files,
		async read(path, start, end) {
			const handle = await open(join(directory, path), "r");
			try {
				const buffer = new Uint8Array(end - start);
				const { bytesRead } = await handle.read(buffer, 0, buffer.byteLength, start);
				return buffer.subarray(0, bytesRead);
			} finally {
				await handle.close();
			}
		},
	};
}
