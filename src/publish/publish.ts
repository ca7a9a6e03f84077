import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { PermanentError, type Refusal, RetryableError } from "../errors.ts";
import type { HubAccess, HubWriteAccess } from "../hub/hub-access.ts";
import type { RepoFile } from "../hub/list-repo-files.ts";
import { updateRepoSettings } from "../hub/update-repo-settings.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { isOfOneCommit } from "../protocol/one-commit.ts";
import { parseRecipe } from "../protocol/recipe.ts";
import { commitFiles } from "./commit-files.ts";
import { createPrivateRepo, type RepoState, repoState } from "./create-private-repo.ts";
import { findForeign } from "./find-foreign.ts";
import type { ManifestSigner } from "./manifest-signature.ts";
import { targetRepo } from "./names.ts";
import type { PublishableVariant } from "./publishable-variant.ts";
import { publishedContent } from "./published-content.ts";
import { manifestPath, type PublishedManifest, readPublishedManifests } from "./published-manifests.ts";
import { basesOf, readOriginalCard, type SourceCard } from "./source-card.ts";
import { tagPublication } from "./tag-publication.ts";
import { tighten } from "./tighten.ts";

/** What the Hub itself puts into a new repo. */
const BLANK_FILES: ReadonlySet<string> = new Set([".gitattributes"]);

export type PublishOutcome =
	| { readonly ok: true; readonly targetRepo: string; readonly targetSha: string; readonly url: string }
	| { readonly ok: false; readonly refusal: Refusal };

type PublishRequest = {
	/** With write rights on the target's namespace. */
	readonly hub: HubWriteAccess;
	/** Reads the source. */
	readonly reader: HubAccess;
	readonly targetRepo: string;
	readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
	readonly variants: readonly PublishableVariant[];
	/** Other published variants of the same source, for the card. */
	readonly siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[];
	/** The newest commit of the source, by which older variants are marked; `null`: not known. */
	readonly newestSha?: string | null;
	/** `null` or absent: manifests are not signed. */
	readonly sign?: ManifestSigner | null;
};

/**
 * Publishes verified variants that share a target repo. The repo is filled by one commit while nobody but the bot sees
 * it, or, when it is public already, changes by one commit from one whole state to the next; then it gets the source's
 * visibility and gating. What would replace another commit's variants without being the source's newest goes to a repo of
 * its own instead: the repo's readers keep the newest. Killed at any point and called again, it goes on from what the repo shows: the manifests in
 * its head say whether the commit was made.
 */
export async function publish(request: PublishRequest): Promise<PublishOutcome> {
	const { hub, reader, targetRepo: repo, job } = request;
	const bases = basesOf(request.variants.map(({ manifest }) => manifest));
	const source = await readOriginalCard({ ...reader, repo: job.sourceRepo, bases });
	if (source === null) return sourceGone(job.sourceRepo, bases);
	const state = await createPrivateRepo({ ...hub, repo });
	const head = await readPublishedManifests({ ...hub, repo, revision: state.sha });
	if (source.headSha !== job.sourceSha && !isOfOneCommit(repo) && wouldReplace(request, head.manifests)) {
		return await publish({ ...request, targetRepo: ownRepo(request) });
	}
	return await publishInto({ ...request, source, state, head });
}

/** Whether a variant of another commit would be lost to readers of the repo. */
function wouldReplace(request: PublishRequest, held: readonly PublishedManifest[]): boolean {
	const paths = new Set(request.variants.map(({ manifest }) => manifestPath(manifest.recipe)));
	return held.some(({ path, manifest }) => paths.has(path) && manifest.source.revision !== request.job.sourceSha);
}

/** Where the variants go instead, because the source has gone on since they were planned. */
function ownRepo({ targetRepo: repo, job, variants }: PublishRequest): string {
	const recipe = parseRecipe(variants[0]?.manifest.recipe ?? "");
	if (!recipe.ok) throw new Error(`A verified recipe does not parse: ${recipe.refusal.message}`);
	return targetRepo({
		namespace: repo.split("/")[0] ?? "",
		sourceRepo: job.sourceRepo,
		recipe: recipe.recipe,
		commit: job.sourceSha,
	});
}

export function sourceGone(
	sourceRepo: string,
	bases: readonly string[],
): { readonly ok: false; readonly refusal: Refusal } {
	return {
		ok: false,
		refusal: {
			code: "repo-not-found",
			message: `The source ${[sourceRepo, ...bases].join(", or its base ")} is gone or no longer readable, so nothing of it is published.`,
			remedy: "Restore the repo or the bot's access to it, then retry the job.",
		},
	};
}

/** The runner's own text, or, where figures were added since, the manifest written anew. */
async function manifestText(manifest: Manifest, directory: string): Promise<string> {
	if (manifest.engine == null && manifest.unmeasured == null && manifest.shape == null) {
		return await readFile(join(directory, "manifest.json"), "utf8");
	}
	return `${JSON.stringify(manifest, null, 2)}\n`;
}

/** Publishes into a repo that is there: a repo that vanishes meanwhile is not made anew. */
export async function publishInto(
	request: PublishRequest & {
		readonly source: SourceCard;
		readonly state: RepoState;
		/** What the repo holds at `state.sha`. */
		readonly head: { readonly files: readonly RepoFile[]; readonly manifests: readonly PublishedManifest[] };
	},
): Promise<PublishOutcome> {
	const { hub, reader, targetRepo: repo, job, variants, siblings, newestSha = null, source, state, head } = request;
	const taken = await whyTaken({ reader, repo, sourceRepo: job.sourceRepo, head });
	if (taken !== null) return { ok: false, refusal: taken };

	const wanted = new Map<string, string>();
	for (const { manifest, directory } of variants) {
		wanted.set(manifestPath(manifest.recipe), await manifestText(manifest, directory));
	}
	const done = [...wanted].every(([path, text]) =>
		head.manifests.some((known) => known.path === path && known.text === text),
	);
	await tighten({ hub, repo, source });
	let sha = state.sha;
	if (!done) {
		const content = await publishedContent({
			hub,
			reader,
			repo,
			source,
			job,
			variants,
			siblings,
			head,
			headSha: state.sha,
			wanted,
			newestSha,
			sign: request.sign ?? null,
		});
		if (!content.ok) return content;
		sha = await commitFiles({
			...hub,
			repo,
			parent: state.sha,
			title: `Publish ${variants.map(({ manifest }) => manifest.recipe).join(", ")} of ${job.sourceRepo}@${job.sourceSha.slice(0, 8)}`,
			files: content.files,
			deleted: content.deleted,
		});
	}
	await assertPublished({ hub, repo, sha, variants });
	await tagPublication({ hub, repo, sha, sourceSha: job.sourceSha, wanted });
	// An upload takes its time: what the source is now counts, and is never less than what it was when it began.
	const kept = head.manifests.filter(({ path }) => !wanted.has(path));
	const bases = basesOf([...kept, ...variants].map(({ manifest }) => manifest));
	const now = await readOriginalCard({ ...reader, repo: job.sourceRepo, bases });
	if (now === null) {
		await tighten({ hub, repo, source: { private: true, gated: source.gated } });
		return sourceGone(job.sourceRepo, bases);
	}
	const visibility = now.private ? "private" : "public";
	await updateRepoSettings({ ...hub, repo, settings: { visibility, gated: now.gated } });
	const final = await repoState({ ...hub, repo });
	if (final === null || final.private !== now.private) {
		throw new RetryableError(`${repo} did not take over the visibility of its source.`);
	}
	return { ok: true, targetRepo: repo, targetSha: sha, url: `${hub.hubUrl}/${repo}` };
}

/** A repo is ours when every manifest in it is of this source, and there is one, or nothing is there at all. */
async function whyTaken(request: {
	readonly reader: HubAccess;
	readonly repo: string;
	readonly sourceRepo: string;
	readonly head: { readonly files: readonly RepoFile[]; readonly manifests: readonly PublishedManifest[] };
}): Promise<Refusal | null> {
	const { reader, repo, sourceRepo, head } = request;
	const remedy = `The operator moves or deletes ${repo}, or sets another hub.namespace, then retries the job.`;
	const manifests = head.manifests.map(({ manifest }) => manifest);
	const foreign = await findForeign({ reader, sourceRepo, manifests });
	if (foreign !== null) {
		return {
			code: "target-taken",
			message: `${repo} holds variants of another model, ${foreign.source.repo}; nothing was changed there.`,
			remedy,
		};
	}
	if (head.manifests.length === 0 && head.files.some((file) => !BLANK_FILES.has(file.path))) {
		return {
			code: "target-taken",
			message: `${repo} exists and was not made by this bot; nothing was changed there.`,
			remedy,
		};
	}
	return null;
}

/** Before anybody sees it: what the Hub says it holds at this commit is what was verified, byte for byte. */
async function assertPublished(request: {
	readonly hub: HubWriteAccess;
	readonly repo: string;
	readonly sha: string;
	readonly variants: readonly PublishableVariant[];
}): Promise<void> {
	const { hub, repo, sha, variants } = request;
	const head = await readPublishedManifests({ ...hub, repo, revision: sha });
	for (const { manifest } of variants) {
		const entry = head.manifests.find(({ path }) => path === manifestPath(manifest.recipe));
		for (const file of manifest.files) {
			const listed = entry?.files.find(({ path }) => path === file.path)?.listed;
			const same =
				listed !== undefined && listed.size === file.size && (listed.sha256 === null || listed.sha256 === file.sha256);
			if (!same) {
				throw new PermanentError({
					code: "verification-failed",
					message: `${repo} does not hold the verified ${file.path} after the upload.`,
					remedy: "Retry the job; if it happens again, see who else writes to that repo.",
				});
			}
		}
	}
}
