import { type FileEntry, type FileTree, lfsEntry } from "./git-objects.ts";
import { HubError } from "./hub-error.ts";
import { checkedPath } from "./identifiers.ts";

export type CommitHeader = { summary: string; description: string; parentCommit: string | null };

/** What one line of a commit asks for; a regular file's content is already in the blob store. */
export type CommitOperation =
	| { readonly kind: "file"; readonly path: string; readonly entry: FileEntry; readonly oldPath: string | null }
	| { readonly kind: "lfs"; readonly path: string; readonly oid: string; readonly oldPath: string | null }
	| { readonly kind: "delete"; readonly path: string; readonly folder: boolean | null };

const MOST_FILES = 100_000;

/** The tree after the operations, in their order. Refuses files where folders are, unknown LFS objects and bad paths. */
export function applyOperations(
	before: FileTree,
	operations: readonly CommitOperation[],
	lfsSize: (oid: string) => number | null,
): FileTree {
	const files = new Map(before);
	const move = (oldPath: string | null, path: string): void => {
		if (oldPath === null) return;
		if (!files.delete(checkedPath(oldPath)) && oldPath !== path)
			throw new HubError(400, `There is no ${oldPath} to move.`);
	};
	for (const operation of operations) {
		switch (operation.kind) {
			case "file":
				move(operation.oldPath, operation.path);
				files.set(checkedPath(operation.path), operation.entry);
				break;
			case "lfs": {
				const size = lfsSize(operation.oid);
				if (size === null)
					throw new HubError(
						400,
						`LFS pointer pointed to a file that does not exist: ${operation.path} names sha256 ${operation.oid}, which was not uploaded to this repo.`,
					);
				move(operation.oldPath, operation.path);
				files.set(checkedPath(operation.path), lfsEntry(operation.oid, size));
				break;
			}
			case "delete": {
				const path = checkedPath(operation.path.replace(/\/$/, ""));
				let found = operation.folder !== true && files.delete(path);
				if (!found && operation.folder !== false) {
					const prefix = `${path}/`;
					for (const file of [...files.keys()])
						if (file.startsWith(prefix)) {
							files.delete(file);
							found = true;
						}
				}
				if (!found) throw new HubError(400, `A file with the name "${path}" does not exist.`);
				break;
			}
		}
	}
	if (files.size > MOST_FILES) throw new HubError(400, `A repo here holds at most ${MOST_FILES} files.`);
	for (const path of files.keys()) {
		for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1))
			if (files.has(path.slice(0, end)))
				throw new HubError(400, `${path.slice(0, end)} would be a file and a folder at once.`);
	}
	return files;
}

export function sameTree(a: FileTree, b: FileTree): boolean {
	if (a.size !== b.size) return false;
	for (const [path, entry] of a) if (b.get(path)?.oid !== entry.oid) return false;
	return true;
}

/**
 * Carries the changes from `base` to `theirs` over to `ours`, file by file.
 * A file that both sides changed to different contents is a conflict.
 */
export function mergeTrees(
	base: FileTree,
	ours: FileTree,
	theirs: FileTree,
): { files: FileTree; conflicts: readonly string[] } {
	const files = new Map(ours);
	const conflicts: string[] = [];
	for (const path of new Set([...base.keys(), ...theirs.keys()])) {
		const was = base.get(path)?.oid;
		const wanted = theirs.get(path);
		const present = ours.get(path)?.oid;
		if (wanted?.oid === was || wanted?.oid === present) continue;
		if (present !== was) conflicts.push(path);
		else if (wanted === undefined) files.delete(path);
		else files.set(path, wanted);
	}
	return { files, conflicts };
}
