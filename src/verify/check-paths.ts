import { isOfKind } from "../protocol/source-files.ts";
import { quoted } from "./refusals.ts";
import { ASK_OWNER, refuse } from "./refused.ts";
import type { SourceFile } from "./source-reader.ts";

/** What a loader reads beside the weights, and what says under which terms they come. Anything else in the repo is never fetched. */
export function isCompanion(path: string): boolean {
	return isOfKind(path, "configuration", "tokenizer", "generation", "processor", "licence", "card");
}

/** Refuses a repo that holds a file whose name leads elsewhere, or two that one folder cannot both hold. */
export function checkPaths(files: readonly SourceFile[]): void {
	const folded = new Set<string>();
	for (const { path } of files) {
		const parts = path.split("/");
		const bad =
			path.length > 1024 ||
			/[\u0000-\u001f\u007f\\:]/.test(path) ||
			parts.some((part) => part === "" || part === "." || part === "..");
		if (bad) {
			refuse("unsafe-path", `The repo holds a file with an unsafe name, ${quoted(path)}.`, ASK_OWNER);
		}
		// Only for what would be fetched: on a file system that ignores case, one file would overwrite the other.
		if (!isCompanion(path.toLowerCase()) && !path.toLowerCase().endsWith(".safetensors")) continue;
		if (folded.has(path.toLowerCase())) {
			refuse("unsafe-path", `The repo holds two files whose names differ only in case, ${quoted(path)}.`, ASK_OWNER);
		}
		folded.add(path.toLowerCase());
	}
}
