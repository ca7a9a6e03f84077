import type { Identity } from "./accounts.ts";
import type { FileEntry } from "./git-objects.ts";
import { type HubContext, mayRead } from "./hub-context.ts";
import type { RepoFacts } from "./repo-facts.ts";
import { type Commit, fullName, type Repo } from "./repo-store.ts";

export function lfsView(entry: FileEntry): Record<string, unknown> {
	return entry.lfs === undefined ? {} : { lfs: entry.lfs };
}

/** The public models whose cards name this one as their base, by relation. */
export async function childrenOf(
	context: HubContext,
	repo: Repo,
	identity: Identity | null,
): Promise<readonly { repo: Repo; relation: string }[]> {
	const name = fullName(repo);
	const children: { repo: Repo; relation: string }[] = [];
	for (const other of context.repos.all()) {
		if (other === repo || other.record.type !== "model" || !mayRead(other, identity)) continue;
		const commit = await context.repos.commit(other, other.refs.branches["main"] ?? "");
		const bases = commit === null ? null : (await context.facts(commit)).baseModels;
		if (bases?.models.includes(name)) children.push({ repo: other, relation: bases.relation });
	}
	return children;
}

const LIST_FIELDS = [
	"author",
	"createdAt",
	"disabled",
	"downloads",
	"gated",
	"lastModified",
	"library_name",
	"likes",
	"modelId",
	"pipeline_tag",
	"private",
	"sha",
	"tags",
	"trendingScore",
] as const;
const DETAIL_FIELDS = [
	...LIST_FIELDS,
	"cardData",
	"config",
	"gguf",
	"safetensors",
	"siblings",
	"spaces",
	"usedStorage",
];

/**
 * A repo as `/api/{type}s/{id}` and the search give it. With `expand` only the fields it names, as on the Hub.
 */
export async function repoInfo(
	context: HubContext,
	repo: Repo,
	commit: Commit,
	options: {
		expand: readonly string[];
		form: "list" | "detail";
		more?: readonly string[];
		blobs?: boolean;
		identity: Identity | null;
	},
): Promise<Record<string, unknown>> {
	const facts: RepoFacts = await context.facts(commit);
	const { record, refs } = repo;
	const wanted = new Set<string>(
		options.expand.length > 0
			? options.expand
			: [...(options.form === "list" ? LIST_FIELDS : DETAIL_FIELDS), ...(options.more ?? [])],
	);
	const info: Record<string, unknown> = { _id: record.id, id: fullName(repo) };
	if (options.expand.length === 0) for (const field of ["private"]) wanted.add(field);
	const put = (field: string, value: unknown): void => {
		if (wanted.has(field) && value !== null && value !== undefined) info[field] = value;
	};
	if (record.type === "model") put("modelId", fullName(repo));
	put("author", record.namespace);
	put("sha", commit.oid);
	put("private", record.private);
	put("gated", record.gated);
	put("disabled", false);
	put("downloads", 0);
	put("downloadsAllTime", 0);
	put("likes", record.likes.length);
	put("trendingScore", 0);
	put("lastModified", refs.lastModified);
	put("createdAt", record.createdAt);
	put("tags", facts.tags);
	put("cardData", facts.card);
	put("usedStorage", facts.usedStorage);
	put("spaces", []);
	if (record.type === "model") {
		put("pipeline_tag", facts.pipelineTag);
		put("library_name", facts.libraryName);
		put("config", facts.config);
		put("safetensors", facts.safetensors);
		put("gguf", facts.gguf);
		if (wanted.has("baseModels") && facts.baseModels !== null)
			info["baseModels"] = {
				relation: facts.baseModels.relation,
				models: facts.baseModels.models.map((id) => ({ _id: context.repos.find("model", id)?.record.id ?? "", id })),
			};
		if (wanted.has("childrenModelCount")) {
			const count: Record<string, number> = {};
			for (const child of await childrenOf(context, repo, options.identity))
				count[child.relation] = (count[child.relation] ?? 0) + 1;
			info["childrenModelCount"] = count;
		}
	}
	if (wanted.has("siblings"))
		info["siblings"] = [...commit.files]
			.sort(([a], [b]) => (a < b ? -1 : 1))
			.map(([path, entry]) =>
				options.blobs === true
					? {
							rfilename: path,
							size: entry.size,
							blobId: entry.oid,
							...(entry.lfs === undefined
								? {}
								: { lfs: { sha256: entry.lfs.oid, size: entry.lfs.size, pointerSize: entry.lfs.pointerSize } }),
						}
					: { rfilename: path },
			);
	return info;
}

/** The commits reachable from one, newest first. */
export async function history(context: HubContext, repo: Repo, from: Commit): Promise<readonly Commit[]> {
	const found: Commit[] = [];
	const seen = new Set([from.oid]);
	const frontier = [from];
	while (frontier.length > 0) {
		let newest = 0;
		for (let i = 1; i < frontier.length; i++)
			if ((frontier[i]?.date ?? "") > (frontier[newest]?.date ?? "")) newest = i;
		const [commit] = frontier.splice(newest, 1);
		if (commit === undefined) break;
		found.push(commit);
		for (const oid of commit.parents) {
			if (seen.has(oid)) continue;
			seen.add(oid);
			const parent = await context.repos.commit(repo, oid);
			if (parent !== null) frontier.push(parent);
		}
	}
	return found;
}

/** For each path the last commit, on the first-parent line, that changed it or something under it. */
export async function lastCommits(
	context: HubContext,
	repo: Repo,
	from: Commit,
	paths: readonly string[],
): Promise<ReadonlyMap<string, Commit>> {
	const found = new Map<string, Commit>();
	const state = (commit: Commit, path: string): string => {
		const file = commit.files.get(path);
		if (file !== undefined) return file.oid;
		const prefix = `${path}/`;
		return [...commit.files]
			.filter(([name]) => name.startsWith(prefix))
			.map(([name, entry]) => `${name}:${entry.oid}`)
			.join("\n");
	};
	let commit: Commit | null = from;
	while (commit !== null && found.size < paths.length) {
		const current: Commit = commit;
		const parent: Commit | null =
			current.parents[0] === undefined ? null : await context.repos.commit(repo, current.parents[0]);
		for (const path of paths)
			if (!found.has(path) && (parent === null || state(parent, path) !== state(current, path)))
				found.set(path, current);
		commit = parent;
	}
	return found;
}
