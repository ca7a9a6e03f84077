import { createHash } from "node:crypto";
import type { RepoFile } from "../hub/list-repo-files.ts";
import { isOfKind } from "../protocol/source-files.ts";
import type { SourceContent } from "../records/source.ts";

/** `used`: the files that a runner is given. `null`: the Hub did not tell the content of one of them. */
export function sourceContent(files: readonly RepoFile[], used: ReadonlySet<string>): SourceContent | null {
	const weights: string[] = [];
	const companions: string[] = [];
	for (const { path, size, sha256, gitOid } of files) {
		if (!used.has(path) || isOfKind(path, "card", "licence")) continue;
		const content = sha256 ?? gitOid;
		if (content === null) return null;
		(isOfKind(path, "configuration", "weights") ? weights : companions).push(JSON.stringify([path, size, content]));
	}
	return { weights: digest(weights), companions: digest(companions) };
}

function digest(lines: readonly string[]): string {
	return createHash("sha256").update(lines.toSorted().join("\n")).digest("hex").slice(0, 32);
}
