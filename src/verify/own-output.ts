import { refuse } from "./refused.ts";
import { parseObject, readWhole } from "./source-json.ts";
import type { SourceFile, SourceReader } from "./source-reader.ts";

const MAXIMUM_MANIFEST_BYTES = 64 * 2 ** 20;

/** Refuses what this bot published itself. */
export async function refuseOwnOutput(reader: SourceReader, byPath: ReadonlyMap<string, SourceFile>): Promise<void> {
	const marked = [...byPath.values()].find(
		(file) => file.path === "manifest.json" || /^manifests\/[^/]+\.json$/.test(file.path),
	);
	if (marked === undefined || marked.size > MAXIMUM_MANIFEST_BYTES) return;
	const manifest = parseObject(await readWhole(reader, marked));
	const generator = manifest?.["generator"];
	if (typeof generator === "object" && generator !== null && "name" in generator && generator.name === "yaqa-runner") {
		refuse(
			"already-quantized",
			"This repo was made by yaqa-bot: it is quantized already.",
			"Ask for the variant in a discussion of the original model.",
		);
	}
}
