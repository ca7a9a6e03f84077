import { listCommits, modelInfo } from "@huggingface/hub";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listRefs } from "../hub/list-refs.ts";

/** What a revision comes to. `head`: the commit of the main branch. */
type OwnerCommit =
	| { readonly kind: "found"; readonly sha: string; readonly head: string }
	/** There is no such repo, or none that the token may see. */
	| { readonly kind: "no-repo" }
	| { readonly kind: "no-commits" }
	/** Neither a branch nor a tag, nor a commit that one of them holds. */
	| { readonly kind: "not-the-owners" }
	| { readonly kind: "too-many-commits" };

const SHA = /^[0-9a-f]{40}$/;
/** A commit in full or by its beginning, as people copy it from pages. */
const COMMIT = /^[0-9a-f]{7,40}$/;
const COMMITS_A_PAGE = 1000;
const MAXIMUM_COMMITS = 20_000;
const MAXIMUM_WALKS = 40;

async function headOf(access: HubAccess, repo: string): Promise<OwnerCommit> {
	try {
		const { sha } = await modelInfo({ ...access, name: repo, revision: "main", additionalFields: ["sha"] });
		const head = String(sha);
		return SHA.test(head) ? { kind: "found", sha: head, head } : { kind: "no-commits" };
	} catch (error) {
		const status = hubStatus(error);
		if (status === 401 || status === 403 || status === 404) return { kind: "no-repo" };
		throw error;
	}
}

/**
 * Resolves a revision to a commit that the repo's owner put there.
 *
 * Everybody can open a pull request, and the Hub serves its commits at `refs/pr/N` and at their bare hash like the
 * owner's own. What is quantized is published under the owner's model's name: only what a branch or a tag names, or
 * holds in its history, counts. The revision's text is looked up in lists and never handed on to the Hub.
 */
export async function findOwnerCommit(
	params: HubAccess & { readonly repo: string; readonly revision: string },
): Promise<OwnerCommit> {
	const { repo, revision, ...access } = params;
	const main = await headOf(access, repo);
	if (main.kind !== "found" || revision === "main" || revision === main.head) return main;
	const { head } = main;
	const { branches, tags } = await listRefs({ ...access, repo });
	const named =
		branches.find(({ name }) => name === revision || `refs/heads/${name}` === revision) ??
		tags.find(({ name }) => name === revision || `refs/tags/${name}` === revision);
	if (named !== undefined) return { kind: "found", sha: named.targetCommit, head };
	if (!COMMIT.test(revision)) return { kind: "not-the-owners" };
	const seen = new Set<string>();
	let walks = 0;
	for (const tip of new Set([head, ...[...branches, ...tags].map(({ targetCommit }) => targetCommit)])) {
		// The tips of merged branches and of most tags stand in a history that was walked already.
		if (seen.has(tip)) continue;
		if (++walks > MAXIMUM_WALKS) return { kind: "too-many-commits" };
		for await (const { oid } of listCommits({ ...access, repo, revision: tip, batchSize: COMMITS_A_PAGE })) {
			if (oid.startsWith(revision)) return { kind: "found", sha: oid, head };
			seen.add(oid);
			if (seen.size > MAXIMUM_COMMITS) return { kind: "too-many-commits" };
		}
	}
	return { kind: "not-the-owners" };
}
