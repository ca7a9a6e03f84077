import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { deflateSync } from "node:zlib";
import type { BlobStore } from "./blob-store.ts";
import { commitBody, type FileEntry, lfsEntry, lfsPointer, treeObjects } from "./git-objects.ts";
import { HubError } from "./hub-error.ts";
import { type Commit, messageOf, type RefUpdate, type Repo, type RepoStore } from "./repo-store.ts";

/** The git repo beside a repo's own records: made from them for git clients, and read back after a push. */
export const MIRROR = "git";
const LARGEST_REGULAR = 10 * 1024 * 1024;
const POINTER = /^version https:\/\/git-lfs\.github\.com\/spec\/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n$/;

/** What the Hub refuses a push for, before any ref moves. `lfs-known` lists the uploaded LFS objects. */
const PRE_RECEIVE = `#!/bin/sh
set -e
zero=0000000000000000000000000000000000000000
while read -r old new ref; do
  case "$ref" in
    refs/heads/main) [ "$new" != $zero ] || { echo "The main branch cannot be deleted."; exit 1; } ;;
    refs/heads/*|refs/tags/*) ;;
    refs/pr/*) [ "$old" != $zero ] && [ "$new" != $zero ] || { echo "Pull requests are opened and closed on the Hub."; exit 1; } ;;
    *) echo "Only branches, tags and pull requests can be pushed, not $ref."; exit 1 ;;
  esac
  [ "$new" != $zero ] || continue
  git rev-list --objects "$new" --not --all | git cat-file --batch-check='%(objecttype) %(objectsize) %(objectname) %(rest)' |
    while read -r type size oid path; do
      [ "$type" = blob ] || continue
      if [ "$size" -gt ${LARGEST_REGULAR} ]; then
        echo "Your push was rejected because it contains files larger than 10 MiB. Please use https://git-lfs.github.com/ to store large files. Offending file: $path"
        exit 1
      fi
      if [ "$size" -lt 300 ] && git cat-file blob "$oid" | head -n 1 | grep -q '^version https://git-lfs'; then
        sha=$(git cat-file blob "$oid" | sed -n 's/^oid sha256://p')
        grep -qx "$sha" "$GIT_DIR/lfs-known" || {
          echo "Your push was rejected because an LFS pointer pointed to a file that does not exist. Offending file: $path"
          exit 1
        }
      fi
    done
done
`;

const ENVIRONMENT = { GIT_CONFIG_NOSYSTEM: "1", GIT_CONFIG_GLOBAL: "/dev/null", LC_ALL: "C" };

export function gitEnvironment(): Record<string, string> {
	return { PATH: ["/usr/local/bin", "/usr/bin", "/bin"].join(":"), ...ENVIRONMENT };
}

async function git(directory: string, args: readonly string[], input = ""): Promise<Buffer> {
	const child = spawn("git", ["-C", directory, ...args], { env: gitEnvironment(), stdio: ["pipe", "pipe", "pipe"] });
	const out: Buffer[] = [];
	let said = "";
	child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
	child.stderr.on("data", (chunk: Buffer) => {
		said = (said + chunk.toString("utf8")).slice(-2000);
	});
	// A child that ends early closes the pipe.
	child.stdin.on("error", () => {});
	child.stdin.end(input);
	const code = await new Promise<number | null>((resolve, reject) => {
		child.once("error", () => reject(new HubError(501, "This Hub serves no git: the program git is not installed.")));
		child.once("close", resolve);
	});
	if (code !== 0) throw new Error(`git ${args[0]} ended with ${code}: ${said}`);
	return Buffer.concat(out);
}

async function text(directory: string, args: readonly string[]): Promise<string> {
	return (await git(directory, args)).toString("utf8");
}

function objectPath(mirror: string, oid: string): string {
	return join(mirror, "objects", oid.slice(0, 2), oid.slice(2));
}

async function writeObject(mirror: string, kind: string, oid: string, body: Uint8Array): Promise<void> {
	const path = objectPath(mirror, oid);
	if (existsSync(path)) return;
	await mkdir(dirname(path), { recursive: true });
	await writeFile(path, deflateSync(Buffer.concat([Buffer.from(`${kind} ${body.byteLength}\0`), body])));
}

async function writeCommitObjects(mirror: string, blobs: BlobStore, commit: Commit): Promise<void> {
	for (const { oid, lfs } of commit.files.values()) {
		if (existsSync(objectPath(mirror, oid))) continue;
		const body = lfs === undefined ? await blobs.readRegular(oid) : Buffer.from(lfsPointer(lfs.oid, lfs.size));
		await writeObject(mirror, "blob", oid, body);
	}
	const trees: { readonly oid: string; readonly body: Buffer }[] = [];
	treeObjects(commit.files, (oid, body) => trees.push({ oid, body }));
	for (const { oid, body } of trees) await writeObject(mirror, "tree", oid, body);
	const body = commitBody({ ...commit, date: new Date(commit.date), message: messageOf(commit) });
	await writeObject(mirror, "commit", commit.oid, body);
}

function wantedRefs({ refs }: Repo): Map<string, string> {
	const named = (prefix: string, of: Readonly<Record<string, string>>): [string, string][] =>
		Object.entries(of).map(([name, oid]) => [`${prefix}${name}`, oid]);
	return new Map([
		...named("refs/heads/", refs.branches),
		...named("refs/tags/", refs.tags),
		...named("refs/pr/", refs.pulls),
	]);
}

/** Every ref with the commit that it leads to, through annotated tags. */
async function presentRefs(mirror: string): Promise<Map<string, string>> {
	const lines = await text(mirror, ["for-each-ref", "--format=%(refname) %(objectname) %(*objectname)"]);
	return new Map(
		lines
			.split("\n")
			.filter((line) => line !== "")
			.map((line) => {
				const [name = "", oid = "", peeled = ""] = line.split(" ");
				return [name, peeled === "" ? oid : peeled];
			}),
	);
}

/** Brings the git repo up to date with the records, and answers where it lies. The caller holds the repo's lock. */
export async function syncMirror(repo: Repo, repos: RepoStore, blobs: BlobStore): Promise<string> {
	const mirror = join(repo.directory, MIRROR);
	if (!existsSync(join(mirror, "hooks", "pre-receive"))) {
		await mkdir(mirror, { recursive: true });
		await git(mirror, ["init", "--quiet", "--bare", "--initial-branch=main", "--template="]);
		// Objects stay loose, each a file of its own, so that looking whether one is there is looking for a file.
		for (const [name, value] of [
			["receive.unpackLimit", "10000000"],
			["gc.auto", "0"],
			["uploadpack.allowFilter", "true"],
			["uploadpack.allowAnySHA1InWant", "true"],
			["http.receivepack", "true"],
		] as const) {
			await git(mirror, ["config", name, value]);
		}
		await mkdir(join(mirror, "hooks"), { recursive: true });
		await writeFile(join(mirror, "hooks", "pre-receive"), PRE_RECEIVE);
		await chmod(join(mirror, "hooks", "pre-receive"), 0o755);
	}
	const wanted = wantedRefs(repo);
	const waiting = [...wanted.values()];
	const missing: Commit[] = [];
	const seen = new Set<string>();
	for (let oid = waiting.pop(); oid !== undefined; oid = waiting.pop()) {
		if (seen.has(oid) || existsSync(objectPath(mirror, oid))) continue;
		seen.add(oid);
		const commit = await repos.commit(repo, oid);
		if (commit === null) continue;
		missing.push(commit);
		waiting.push(...commit.parents);
	}
	// Parents first: a commit that is there stands for everything behind it.
	for (const commit of missing.reverse()) await writeCommitObjects(mirror, blobs, commit);
	const present = await presentRefs(mirror);
	const changes = [
		...[...wanted].filter(([name, oid]) => present.get(name) !== oid).map(([name, oid]) => `update ${name} ${oid}`),
		...[...present.keys()].filter((name) => !wanted.has(name)).map((name) => `delete ${name}`),
	];
	if (changes.length > 0) await git(mirror, ["update-ref", "--no-deref", "--stdin"], `${changes.join("\n")}\n`);
	await writeFile(join(mirror, "lfs-known"), [...repo.lfs.keys(), ""].join("\n"));
	return mirror;
}

async function filesOf(mirror: string, oid: string, repo: Repo, blobs: BlobStore): Promise<Map<string, FileEntry>> {
	const rows = await text(mirror, ["ls-tree", "-r", "-z", "--long", oid]);
	const files = new Map<string, FileEntry>();
	for (const row of rows.split("\0")) {
		const [, blob = "", size = "0", path = ""] = /^\d+ blob ([0-9a-f]{40}) +(\d+)\t([\s\S]+)$/.exec(row) ?? [];
		if (path === "") continue;
		const content = await git(mirror, ["cat-file", "blob", blob]);
		const [, sha, bytes] = content.byteLength < 300 ? (POINTER.exec(content.toString("utf8")) ?? []) : [];
		if (sha !== undefined && repo.lfs.has(sha)) files.set(path, lfsEntry(sha, Number(bytes)));
		else files.set(path, { oid: await blobs.putRegular(content), size: Number(size) });
	}
	return files;
}

async function adopt(
	mirror: string,
	oid: string,
	by: string,
	repo: Repo,
	repos: RepoStore,
	blobs: BlobStore,
): Promise<void> {
	const raw = await text(mirror, ["show", "--no-patch", "--format=%T%n%P%n%cI%n%B", oid]);
	const [tree = "", parents = "", date = "", ...lines] = raw.split("\n");
	const [title = "", ...message] = lines.join("\n").trim().split("\n");
	await repos.adoptCommit(repo, {
		oid,
		tree,
		parents: parents.split(" ").filter((one) => one !== ""),
		author: by,
		date: new Date(date).toISOString(),
		title,
		message: message.join("\n").trim(),
		files: await filesOf(mirror, oid, repo, blobs),
	});
}

/** Takes over what was pushed to the git repo; the refs that moved. The caller holds the repo's lock. */
export async function takePushed(
	mirror: string,
	by: string,
	repo: Repo,
	repos: RepoStore,
	blobs: BlobStore,
): Promise<readonly RefUpdate[]> {
	const before = wantedRefs(repo);
	const after = await presentRefs(mirror);
	const updates: RefUpdate[] = [];
	for (const ref of new Set([...before.keys(), ...after.keys()])) {
		const [oldSha = null, newSha = null] = [before.get(ref), after.get(ref)];
		if (oldSha !== newSha) updates.push({ ref, oldSha, newSha });
	}
	for (const { newSha } of updates) {
		if (newSha === null) continue;
		for (const oid of (await text(mirror, ["rev-list", "--reverse", "--topo-order", newSha])).split("\n")) {
			if (oid !== "" && (await repos.commit(repo, oid)) === null) await adopt(mirror, oid, by, repo, repos, blobs);
		}
	}
	if (updates.length === 0) return updates;
	const named = (prefix: string): Record<string, string> =>
		Object.fromEntries(
			[...after].flatMap(([ref, oid]) => (ref.startsWith(prefix) ? [[ref.slice(prefix.length), oid]] : [])),
		);
	await repos.setRefs(repo, {
		branches: named("refs/heads/"),
		tags: named("refs/tags/"),
		pulls: named("refs/pr/"),
	});
	return updates;
}

/** The change from one commit to another, in git's words. */
export async function gitDiff(mirror: string, from: string, to: string): Promise<string> {
	return await text(mirror, ["diff", "--no-color", "--no-ext-diff", from, to]);
}
