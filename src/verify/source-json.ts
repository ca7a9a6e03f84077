import { parseJson } from "../parse-json.ts";
import type { SourceFile, SourceReader } from "./source-reader.ts";

export async function readWhole(reader: SourceReader, file: SourceFile): Promise<Uint8Array> {
	return reader.read(file.path, 0, file.size);
}

/** A JSON object, or `null`. */
export function parseObject(bytes: Uint8Array): Record<string, unknown> | null {
	const json = parseJson(bytes);
	return typeof json === "object" && json !== null && !Array.isArray(json) ? { ...json } : null;
}
