import { createHash } from "node:crypto";

/** One file of a commit. `oid` is the git blob sha1; for an LFS file that of its pointer, and `lfs` names the content. */
export type FileEntry = {
	readonly oid: string;
	readonly size: number;
	readonly lfs?: { readonly oid: string; readonly size: number; readonly pointerSize: number };
};
export type FileTree = ReadonlyMap<string, FileEntry>;

type DirectoryEntry = { readonly path: string; readonly oid: string };

export function gitBlobOid(content: Uint8Array): string {
	return createHash("sha1").update(`blob ${content.byteLength}\0`).update(content).digest("hex");
}

export function lfsPointer(oid: string, size: number): string {
	return `version https://git-lfs.github.com/spec/v1\noid sha256:${oid}\nsize ${size}\n`;
}

export function lfsEntry(oid: string, size: number): FileEntry {
	const pointer = Buffer.from(lfsPointer(oid, size));
	return { oid: gitBlobOid(pointer), size, lfs: { oid, size, pointerSize: pointer.byteLength } };
}

type Node = { readonly files: Map<string, string>; readonly directories: Map<string, Node> };

type OnTree = (oid: string, body: Buffer) => void;

function hashTree(node: Node, path: string, found: DirectoryEntry[], onTree: OnTree): string {
	const rows: { key: Buffer; mode: string; name: string; oid: string }[] = [];
	for (const [name, oid] of node.files) rows.push({ key: Buffer.from(name), mode: "100644", name, oid });
	for (const [name, child] of node.directories) {
		const oid = hashTree(child, path === "" ? name : `${path}/${name}`, found, onTree);
		// git sorts a directory as if its name ended in a slash
		rows.push({ key: Buffer.from(`${name}/`), mode: "40000", name, oid });
	}
	rows.sort((a, b) => Buffer.compare(a.key, b.key));
	const body = Buffer.concat(
		rows.map((row) => Buffer.concat([Buffer.from(`${row.mode} ${row.name}\0`), Buffer.from(row.oid, "hex")])),
	);
	const oid = createHash("sha1").update(`tree ${body.byteLength}\0`).update(body).digest("hex");
	onTree(oid, body);
	if (path !== "") found.push({ path, oid });
	return oid;
}

/** The root tree's oid and every directory with its own, as git computes them; `onTree` gets each tree as git stores it. */
export function treeObjects(
	files: FileTree,
	onTree: OnTree = () => {},
): { root: string; directories: readonly DirectoryEntry[] } {
	const root: Node = { files: new Map(), directories: new Map() };
	for (const [path, entry] of files) {
		const segments = path.split("/");
		const name = segments.pop() ?? path;
		let node = root;
		for (const segment of segments) {
			let child = node.directories.get(segment);
			if (child === undefined) {
				child = { files: new Map(), directories: new Map() };
				node.directories.set(segment, child);
			}
			node = child;
		}
		node.files.set(name, entry.oid);
	}
	const directories: DirectoryEntry[] = [];
	const oid = hashTree(root, "", directories, onTree);
	directories.sort((a, b) => (a.path < b.path ? -1 : 1));
	return { root: oid, directories };
}

type CommitFields = {
	readonly tree: string;
	readonly parents: readonly string[];
	readonly author: string;
	readonly date: Date;
	readonly message: string;
};

/** A commit as git stores it. */
export function commitBody(commit: CommitFields): Buffer {
	const seconds = Math.floor(commit.date.getTime() / 1000);
	const person = `${commit.author} <${commit.author}@users.noreply.local> ${seconds} +0000`;
	const text = [
		`tree ${commit.tree}`,
		...commit.parents.map((parent) => `parent ${parent}`),
		`author ${person}`,
		`committer ${person}`,
		"",
		commit.message,
		"",
	].join("\n");
	return Buffer.from(text);
}

export function commitOid(commit: CommitFields): string {
	const body = commitBody(commit);
	return createHash("sha1").update(`commit ${body.byteLength}\0`).update(body).digest("hex");
}
