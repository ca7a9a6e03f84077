import { lstat, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { PermanentError } from "../errors.ts";
import { fileSha256 } from "../hub/file-hash.ts";
import { parseJson } from "../parse-json.ts";
import { sha256Hex } from "../protocol/manifest.ts";

export const SKETCH = "sketch.json";
const MAXIMUM_RECORD_BYTES = 64 * 1024 * 1024;

/** What is read of the runner's `sketch.json`. */
const SketchRecord = z.object({
	key: sha256Hex,
	kind: z.string().max(20),
	iterations: z.int(),
	calibration: z.object({ sha256: sha256Hex, sequences: z.int(), length: z.int() }),
	files: z.record(
		z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors$/),
		z.object({ size: z.int().min(0), sha256: sha256Hex }),
	),
});
export type SketchRecord = z.infer<typeof SketchRecord>;

export function damaged(what: string, cause?: unknown): PermanentError {
	return new PermanentError(
		{
			code: "verification-failed",
			message: `The sketch is not stored: ${what}.`,
			remedy: "Nothing: the next job on this model takes a new one.",
		},
		{ cause },
	);
}

/** `sketch.json` of a folder whose files are all there and as it says; nothing else of the folder is looked at. */
export async function readSketch(directory: string): Promise<SketchRecord> {
	const path = join(directory, SKETCH);
	let record: SketchRecord;
	try {
		const entry = await lstat(path);
		if (!entry.isFile() || entry.size > MAXIMUM_RECORD_BYTES) throw new Error("It is no plain file, or too long.");
		record = SketchRecord.parse(parseJson(await readFile(path)));
	} catch (error) {
		throw damaged(`${SKETCH} cannot be read`, error);
	}
	for (const [name, expected] of Object.entries(record.files)) {
		const file = join(directory, name);
		const entry = await lstat(file).catch(() => null);
		if (entry === null || !entry.isFile() || entry.size !== expected.size) throw damaged(`${name} is not as listed`);
		if ((await fileSha256(file)) !== expected.sha256) throw damaged(`${name} is damaged`);
	}
	return record;
}
