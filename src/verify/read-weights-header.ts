import { quoted } from "./refusals.ts";
import { ASK_OWNER, refuse } from "./refused.ts";
import {
	LENGTH_BYTES,
	parseSafetensorsHeader,
	SafetensorsHeaderError,
	safetensorsHeaderLength,
	type TensorInfo,
} from "./safetensors-header.ts";
import type { SourceFile, SourceReader } from "./source-reader.ts";

const FIRST_READ_BYTES = 128 * 2 ** 10;

/** The tensors that a safetensors file of a source holds, by its header alone. */
export async function readWeightsHeader(
	reader: SourceReader,
	file: SourceFile,
): Promise<ReadonlyMap<string, TensorInfo>> {
	try {
		let start = await reader.read(file.path, 0, Math.min(file.size, FIRST_READ_BYTES));
		const needed = LENGTH_BYTES + safetensorsHeaderLength(start, file.size);
		if (needed > start.byteLength) start = await reader.read(file.path, 0, needed);
		return parseSafetensorsHeader(start, file.size).tensors;
	} catch (error) {
		if (!(error instanceof SafetensorsHeaderError)) throw error;
		refuse("broken-safetensors", `${quoted(file.path)} is not a sound safetensors file: ${error.message}.`, ASK_OWNER);
	}
}
