import { appendFile, mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../clock.ts";
import { createKeyedLock } from "../keyed-lock.ts";
import { readJson, writeFileAtomically, writeJsonAtomically } from "./atomic-file.ts";
import { commitOid, type FileEntry, type FileTree, treeObjects } from "./git-objects.ts";
import { HubError } from "./hub-error.ts";
import { accountId, newId } from "./identifiers.ts";

export const REPO_TYPES = ["model", "dataset", "space"] as const;
export type RepoType = (typeof REPO_TYPES)[number];

const accessRequestSchema = z.object({
	user: z.string(),
	status: z.enum(["pending", "accepted", "rejected"]),
	at: z.string(),
	reviewedAt: z.string().optional(),
	by: z.string().optional(),
});
export type AccessRequest = z.infer<typeof accessRequestSchema>;

const described = { description: z.string().optional(), updatedAt: z.string() };
/** What a Space was given; of a secret, only that there is one: no Space runs here. */
const spaceSchema = z.object({
	variables: z.record(z.string(), z.object({ value: z.string(), ...described })),
	secrets: z.record(z.string(), z.object(described)),
	hardware: z.string(),
	sleepSeconds: z.number().nullable(),
	paused: z.boolean(),
});
export type SpaceSettings = z.infer<typeof spaceSchema>;
const NEW_SPACE: SpaceSettings = {
	variables: {},
	secrets: {},
	hardware: "cpu-basic",
	sleepSeconds: null,
	paused: false,
};

const recordSchema = z.object({
	id: z.string(),
	type: z.enum(REPO_TYPES),
	namespace: z.string(),
	name: z.string(),
	private: z.boolean(),
	gated: z.union([z.literal(false), z.literal("auto"), z.literal("manual")]),
	discussionsDisabled: z.boolean(),
	createdAt: z.string(),
	createdBy: z.string(),
	/** Full names this repo had before; they keep leading here until another repo takes them. */
	formerNames: z.array(z.string()),
	access: z.array(accessRequestSchema),
	likes: z.array(z.object({ user: z.string(), at: z.string() })).default([]),
	space: spaceSchema.default(NEW_SPACE),
});
type RepoRecord = z.infer<typeof recordSchema>;

const refsSchema = z.object({
	branches: z.record(z.string(), z.string()),
	tags: z.record(z.string(), z.string()),
	pulls: z.record(z.string(), z.string()),
	lastModified: z.string(),
});
type Refs = z.infer<typeof refsSchema>;

const entrySchema = z.object({
	oid: z.string(),
	size: z.number(),
	lfs: z.object({ oid: z.string(), size: z.number(), pointerSize: z.number() }).optional(),
});
const commitSchema = z.object({
	oid: z.string(),
	tree: z.string(),
	parents: z.array(z.string()),
	author: z.string(),
	date: z.string(),
	title: z.string(),
	message: z.string(),
	files: z.array(z.tuple([z.string(), entrySchema])),
});

export type Commit = {
	readonly oid: string;
	readonly tree: string;
	readonly parents: readonly string[];
	readonly author: string;
	readonly date: string;
	readonly title: string;
	readonly message: string;
	readonly files: FileTree;
};

type LfsObject = { readonly oid: string; readonly size: number; readonly pushedAt: string };

export type Repo = {
	readonly directory: string;
	record: RepoRecord;
	refs: Refs;
	/** LFS objects that were uploaded through this repo; a commit may name no others. */
	readonly lfs: Map<string, LfsObject>;
};

export type RefUpdate = { readonly ref: string; readonly oldSha: string | null; readonly newSha: string | null };

export type RepoStore = {
	all(): readonly Repo[];
	find(type: RepoType, fullName: string): Repo | null;
	byId(id: string): Repo | null;
	/** One writer at a time for a repo. */
	locked<T>(repo: Repo, work: () => Promise<T>): Promise<T>;
	create(options: {
		type: RepoType;
		namespace: string;
		name: string;
		private: boolean;
		createdBy: string;
		files: FileTree;
	}): Promise<Repo>;
	delete(repo: Repo): Promise<void>;
	move(repo: Repo, namespace: string, name: string): Promise<void>;
	saveRecord(repo: Repo, change: Partial<RepoRecord>): Promise<void>;
	commit(repo: Repo, oid: string): Promise<Commit | null>;
	/** The one commit whose id begins so; `null` where there is none, or more than one. */
	commitStartingWith(repo: Repo, prefix: string): Promise<Commit | null>;
	/** Stores a commit object; it becomes reachable by `setRefs` alone, so a crash between the two leaves the repo as it was. */
	writeCommit(
		repo: Repo,
		commit: { parents: readonly string[]; author: string; title: string; message: string; files: FileTree },
	): Promise<Commit>;
	/** Takes a commit over that git made; `oid` is what git computed. */
	adoptCommit(repo: Repo, commit: Commit): Promise<void>;
	/** Replaces refs in one rename: the moment at which a commit exists. */
	setRefs(repo: Repo, change: Partial<Pick<Refs, "branches" | "tags" | "pulls">>): Promise<void>;
	registerLfs(repo: Repo, oid: string, size: number): Promise<void>;
	/** Takes LFS objects from the repo; the bytes stay for other repos that hold them. */
	forgetLfs(repo: Repo, oids: ReadonlySet<string>): Promise<void>;
};

export function messageOf({ title, message }: { readonly title: string; readonly message: string }): string {
	return message === "" ? title : `${title}\n\n${message}`;
}

/** The id of somebody's request for access: the same however often it is decided. */
export function requestIdOf(repo: Repo, user: string): string {
	return accountId(`${repo.record.id}:${user}`);
}

export function fullName(repo: Repo): string {
	return `${repo.record.namespace}/${repo.record.name}`;
}

const REPO_DIRECTORY = /^[0-9a-f]{24}$/;
const COMMITS_IN_MEMORY = 256;

const lfsLineSchema = z.object({ oid: z.string(), size: z.number(), pushedAt: z.string() });

async function readLfsLines(path: string): Promise<Map<string, LfsObject>> {
	const found = new Map<string, LfsObject>();
	let text = "";
	try {
		text = await readFile(path, "utf8");
	} catch {
		return found;
	}
	for (const line of text.split("\n")) {
		if (line === "") continue;
		try {
			const object = lfsLineSchema.parse(JSON.parse(line));
			found.set(object.oid, object);
		} catch {
			// the torn last line of a killed process: that upload was never acknowledged
		}
	}
	return found;
}

/**
 * Repos as bare records on disk. Long, since its functions share the tables of names; each is one operation on a repo.
 */
export async function openRepoStore(dataDirectory: string, clock: Clock): Promise<RepoStore> {
	const root = join(dataDirectory, "repos");
	await mkdir(root, { recursive: true });
	const repos = new Map<string, Repo>();
	const byName = new Map<string, Repo>();
	const formerly = new Map<string, string>();
	const lock = createKeyedLock();
	const commits = new Map<string, Commit>();
	const key = (type: RepoType, name: string): string => `${type}:${name.toLowerCase()}`;

	for (const entry of await readdir(root)) {
		const directory = join(root, entry);
		if (!REPO_DIRECTORY.test(entry)) {
			// a creation or a deletion that a kill cut short
			await rm(directory, { recursive: true, force: true });
			continue;
		}
		const record = await readJson(join(directory, "repo.json"), recordSchema);
		const refs = await readJson(join(directory, "refs.json"), refsSchema);
		if (record === null || refs === null) throw new Error(`${directory} lacks repo.json or refs.json.`);
		const repo: Repo = { directory, record, refs, lfs: await readLfsLines(join(directory, "lfs.ndjson")) };
		repos.set(record.id, repo);
		byName.set(key(record.type, fullName(repo)), repo);
		for (const name of record.formerNames) formerly.set(key(record.type, name), record.id);
	}

	function remember(cacheKey: string, commit: Commit): void {
		commits.set(cacheKey, commit);
		if (commits.size > COMMITS_IN_MEMORY) {
			const oldest = commits.keys().next();
			if (!oldest.done) commits.delete(oldest.value);
		}
	}

	async function writeCommitTo(
		directory: string,
		id: string,
		commit: { parents: readonly string[]; author: string; title: string; message: string; files: FileTree },
	): Promise<Commit> {
		const date = clock.now();
		const message = messageOf(commit);
		const tree = treeObjects(commit.files).root;
		const oid = commitOid({ tree, parents: commit.parents, author: commit.author, date, message });
		const whole: Commit = { ...commit, oid, tree, date: date.toISOString() };
		await writeJsonAtomically(join(directory, "commits", `${oid}.json`), { ...whole, files: [...commit.files] });
		remember(`${id}:${oid}`, whole);
		return whole;
	}

	const store: RepoStore = {
		all: () => [...repos.values()],
		byId: (id) => repos.get(id) ?? null,
		find(type, name) {
			const live = byName.get(key(type, name));
			if (live !== undefined) return live;
			const id = formerly.get(key(type, name));
			return id === undefined ? null : (repos.get(id) ?? null);
		},
		locked: (repo, work) => lock(repo.record.id, work),
		async create(options) {
			return lock(key(options.type, `${options.namespace}/${options.name}`), async () => {
				const taken = byName.get(key(options.type, `${options.namespace}/${options.name}`));
				if (taken !== undefined) throw new HubError(409, "You already created this model repo");
				const id = newId();
				const building = join(root, `${id}.new`);
				for (const folder of ["commits", "discussions", "xorbs"])
					await mkdir(join(building, folder), { recursive: true });
				const now = clock.now().toISOString();
				const record: RepoRecord = {
					id,
					type: options.type,
					namespace: options.namespace,
					name: options.name,
					private: options.private,
					gated: false,
					discussionsDisabled: false,
					createdAt: now,
					createdBy: options.createdBy,
					formerNames: [],
					access: [],
					likes: [],
					space: NEW_SPACE,
				};
				const first = await writeCommitTo(building, id, {
					parents: [],
					author: options.createdBy,
					title: "initial commit",
					message: "",
					files: options.files,
				});
				const refs: Refs = { branches: { main: first.oid }, tags: {}, pulls: {}, lastModified: now };
				await writeJsonAtomically(join(building, "repo.json"), record);
				await writeJsonAtomically(join(building, "refs.json"), refs);
				const directory = join(root, id);
				await rename(building, directory);
				const repo: Repo = { directory, record, refs, lfs: new Map() };
				repos.set(id, repo);
				byName.set(key(record.type, fullName(repo)), repo);
				return repo;
			});
		},
		async delete(repo) {
			await lock(repo.record.id, async () => {
				const doomed = join(root, `${repo.record.id}.deleted`);
				await rename(repo.directory, doomed);
				repos.delete(repo.record.id);
				byName.delete(key(repo.record.type, fullName(repo)));
				await rm(doomed, { recursive: true, force: true });
			});
		},
		async move(repo, namespace, name) {
			const from = fullName(repo);
			const to = `${namespace}/${name}`;
			await lock(key(repo.record.type, to), async () => {
				const taken = byName.get(key(repo.record.type, to));
				if (taken !== undefined && taken !== repo) throw new HubError(409, `A repo is already named ${to}.`);
				const formerNames = [...repo.record.formerNames.filter((former) => former !== to && former !== from), from];
				await store.saveRecord(repo, { namespace, name, formerNames });
				byName.delete(key(repo.record.type, from));
				byName.set(key(repo.record.type, to), repo);
				formerly.set(key(repo.record.type, from), repo.record.id);
			});
		},
		async saveRecord(repo, change) {
			const record = { ...repo.record, ...change };
			await writeJsonAtomically(join(repo.directory, "repo.json"), record);
			repo.record = record;
		},
		async commit(repo, oid) {
			if (!/^[0-9a-f]{40}$/.test(oid)) return null;
			const cacheKey = `${repo.record.id}:${oid}`;
			const cached = commits.get(cacheKey);
			if (cached !== undefined) return cached;
			const read = await readJson(join(repo.directory, "commits", `${oid}.json`), commitSchema);
			if (read === null) return null;
			const files = new Map<string, FileEntry>();
			for (const [path, { oid: blob, size, lfs }] of read.files)
				files.set(path, lfs === undefined ? { oid: blob, size } : { oid: blob, size, lfs });
			const commit: Commit = { ...read, files };
			remember(cacheKey, commit);
			return commit;
		},
		async commitStartingWith(repo, prefix) {
			const found = (await readdir(join(repo.directory, "commits"))).filter((name) => name.startsWith(prefix));
			const [only, more] = found;
			return only === undefined || more !== undefined ? null : await store.commit(repo, only.replace(/\.json$/, ""));
		},
		async adoptCommit(repo, commit) {
			const path = join(repo.directory, "commits", `${commit.oid}.json`);
			await writeJsonAtomically(path, { ...commit, files: [...commit.files] });
			remember(`${repo.record.id}:${commit.oid}`, commit);
		},
		writeCommit: (repo, commit) => writeCommitTo(repo.directory, repo.record.id, commit),
		async setRefs(repo, change) {
			const refs = { ...repo.refs, ...change, lastModified: clock.now().toISOString() };
			await writeJsonAtomically(join(repo.directory, "refs.json"), refs);
			repo.refs = refs;
		},
		async registerLfs(repo, oid, size) {
			if (repo.lfs.has(oid)) return;
			const object: LfsObject = { oid, size, pushedAt: clock.now().toISOString() };
			await appendFile(join(repo.directory, "lfs.ndjson"), `${JSON.stringify(object)}\n`, { mode: 0o600 });
			repo.lfs.set(oid, object);
		},
		async forgetLfs(repo, oids) {
			const kept = [...repo.lfs.values()].filter(({ oid }) => !oids.has(oid));
			const lines = kept.map((object) => `${JSON.stringify(object)}\n`).join("");
			await writeFileAtomically(join(repo.directory, "lfs.ndjson"), Buffer.from(lines));
			for (const oid of oids) repo.lfs.delete(oid);
		},
	};
	return store;
}
