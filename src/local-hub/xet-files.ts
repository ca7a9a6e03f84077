import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readJson, writeJsonAtomically } from "./atomic-file.ts";

const fileSchema = z.object({
	/** The same content as an LFS object. */
	sha256: z.string(),
	size: z.number(),
	terms: z.array(
		z.object({ xorb: z.string(), unpackedLength: z.number(), chunkStart: z.number(), chunkEnd: z.number() }),
	),
});
/** A file that came over Xet: what it is called elsewhere, and of which chunks it was put together. */
export type XetFile = z.infer<typeof fileSchema>;

const HASH = /^[0-9a-f]{64}$/;

export async function saveXetFile(directory: string, hash: string, file: XetFile): Promise<void> {
	const folder = join(directory, "xet-files");
	await mkdir(folder, { recursive: true });
	await writeJsonAtomically(join(folder, `${hash}.json`), file);
}

export async function findXetFile(directory: string, hash: string): Promise<XetFile | null> {
	return HASH.test(hash) ? await readJson(join(directory, "xet-files", `${hash}.json`), fileSchema) : null;
}
