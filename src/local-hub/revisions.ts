import { HubError } from "./hub-error.ts";
import type { Commit, Repo, RepoStore } from "./repo-store.ts";

/** The commit that a revision names: HEAD, a branch, a tag, `refs/…` or a full commit sha. `null`: there is none. */
export async function findRevision(repos: RepoStore, repo: Repo, revision: string): Promise<Commit | null> {
	const { branches, tags, pulls } = repo.refs;
	const own = (of: Readonly<Record<string, string>>, name: string): string | undefined =>
		Object.hasOwn(of, name) ? of[name] : undefined;
	let oid: string | undefined;
	if (revision === "HEAD") oid = own(branches, "main");
	else if (revision.startsWith("refs/heads/")) oid = own(branches, revision.slice(11));
	else if (revision.startsWith("refs/tags/")) oid = own(tags, revision.slice(10));
	else if (revision.startsWith("refs/pr/")) oid = own(pulls, revision.slice(8));
	else oid = own(branches, revision) ?? own(tags, revision) ?? revision;
	if (oid === undefined) return null;
	const commit = await repos.commit(repo, oid);
	if (commit !== null || !/^[0-9a-f]{7,39}$/.test(oid)) return commit;
	return await repos.commitStartingWith(repo, oid);
}

export async function revisionOrThrow(repos: RepoStore, repo: Repo, revision: string): Promise<Commit> {
	const commit = await findRevision(repos, repo, revision);
	if (commit === null) throw new HubError(404, `Invalid rev id: ${revision}`, { code: "RevisionNotFound" });
	return commit;
}

/**
 * Splits `rev/path` given as decoded URL segments. Revisions may hold slashes, both encoded into one segment and raw
 * (`refs/pr/1`), so the shortest run of segments that names a revision is taken.
 */
export async function splitRevision(
	repos: RepoStore,
	repo: Repo,
	segments: readonly string[],
): Promise<{ revision: string; commit: Commit; path: string }> {
	const longest = Math.min(segments.length, 6);
	for (let count = 1; count <= longest; count++) {
		const revision = segments.slice(0, count).join("/");
		const commit = await findRevision(repos, repo, revision);
		if (commit !== null) return { revision, commit, path: segments.slice(count).join("/") };
	}
	throw new HubError(404, `Invalid rev id: ${segments[0] ?? ""}`, { code: "RevisionNotFound" });
}

/** The branch or pull-request ref that a commit may be put on; 404 for one that does not exist, 400 for a tag or a sha. */
export function writableRef(
	repo: Repo,
	revision: string,
): { kind: "branch" | "pull"; name: string; ref: string; head: string } {
	const branch = revision === "HEAD" ? "main" : revision.startsWith("refs/heads/") ? revision.slice(11) : revision;
	if (revision.startsWith("refs/pr/")) {
		const name = revision.slice(8);
		const head = Object.hasOwn(repo.refs.pulls, name) ? repo.refs.pulls[name] : undefined;
		if (head !== undefined) return { kind: "pull", name, ref: revision, head };
	} else {
		const head = Object.hasOwn(repo.refs.branches, branch) ? repo.refs.branches[branch] : undefined;
		if (head !== undefined) return { kind: "branch", name: branch, ref: `refs/heads/${branch}`, head };
		if (Object.hasOwn(repo.refs.tags, revision) || /^[0-9a-f]{40}$/.test(revision))
			throw new HubError(400, "Commits go to a branch or a pull request, not to a tag or a commit.");
	}
	throw new HubError(404, `Invalid rev id: ${revision}`, { code: "RevisionNotFound" });
}
