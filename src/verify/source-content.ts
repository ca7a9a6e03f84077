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

/**
 * Of an adapter: one thing, as nobody but a run tells what the merged model's files are. Licences count, since they are
 * merged too, and so does the base's commit.
 */
export function adaptedContent(
	files: readonly RepoFile[],
	used: ReadonlySet<string>,
	base: { readonly repo: string; readonly sha: string },
): SourceContent | null {
	const lines: string[] = [JSON.stringify([base.repo, base.sha])];
	for (const { path, size, sha256, gitOid } of files) {
		if (!used.has(path) || isOfKind(path, "card")) continue;
		const content = sha256 ?? gitOid;
		if (content === null) return null;
		lines.push(JSON.stringify([path, size, content]));
	}
	return { weights: digest(lines), companions: digest(lines) };
}

function digest(lines: readonly string[]): string {
	return createHash("sha256").update(lines.toSorted().join("\n")).digest("hex").slice(0, 32);
}
