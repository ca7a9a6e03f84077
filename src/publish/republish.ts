import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Refusal } from "../errors.ts";
import { downloadRepoFile } from "../hub/download-repo-file.ts";
import type { HubAccess, HubWriteAccess } from "../hub/hub-access.ts";
import { listRepoFiles } from "../hub/list-repo-files.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { parseRecipe } from "../protocol/recipe.ts";
import { isCopied, MAXIMUM_COPIED_BYTES } from "../protocol/source-files.ts";
import { repoState } from "./create-private-repo.ts";
import type { ManifestSigner } from "./manifest-signature.ts";
import { publishInto, sourceGone } from "./publish.ts";
import type { PublishableVariant } from "./publishable-variant.ts";
import { manifestPath, type PublishedManifest, readPublishedManifests } from "./published-manifests.ts";
import { basesOf, readOriginalCard } from "./source-card.ts";

type RepublishOutcome =
	| { readonly kind: "published"; readonly targetSha: string; readonly manifests: ReadonlyMap<string, Manifest> }
	/** There is nothing to take over: the repo, or what it held of these variants, is not there any more. */
	| { readonly kind: "vanished"; readonly reason: string }
	| { readonly kind: "refused"; readonly refusal: Refusal };

/**
 * Brings published variants to a newer commit of their source that left the weights alone: no run, no new weights. The
 * new tokenizer, template, settings and licence take the place of the old where the container keeps them as files; the
 * manifest names both commits, the one that the files are of and the one that was measured. Verified like every
 * publication: what the Hub holds afterwards is what the manifests say, byte for byte.
 */
export async function republish(request: {
	readonly hub: HubWriteAccess;
	readonly reader: HubAccess;
	readonly targetRepo: string;
	readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
	/** `fromSha`: the commit that the variant is of. */
	readonly variants: readonly { readonly id: string; readonly recipe: string; readonly fromSha: string }[];
	readonly siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[];
	/** `null` or absent: manifests are not signed. */
	readonly sign?: ManifestSigner | null;
}): Promise<RepublishOutcome> {
	const { hub, reader, targetRepo: repo, job, variants, siblings } = request;
	const state = await repoState({ ...hub, repo });
	if (state === null) return { kind: "vanished", reason: `${repo} was no longer there.` };
	const head = await readPublishedManifests({ ...hub, repo, revision: state.sha });
	const bases = basesOf(head.manifests.map(({ manifest }) => manifest));
	const source = await readOriginalCard({ ...reader, repo: job.sourceRepo, bases });
	if (source === null) return { kind: "refused", refusal: sourceGone(job.sourceRepo, bases).refusal };
	const listed = await listRepoFiles({ ...reader, repo: job.sourceRepo, revision: job.sourceSha });
	const folder = await mkdtemp(join(tmpdir(), "yaqa-republish-"));
	try {
		const manifests = new Map<string, Manifest>();
		const publishable: PublishableVariant[] = [];
		for (const { id, recipe, fromSha } of variants) {
			const entry = head.manifests.find(({ path }) => path === manifestPath(recipe));
			const revision = entry?.manifest.source.revision;
			const lost = `${repo} no longer held ${recipe} of commit ${fromSha.slice(0, 8)}.`;
			if (entry === undefined || (revision !== fromSha && revision !== job.sourceSha)) {
				return { kind: "vanished", reason: lost };
			}
			const directory = join(folder, String(publishable.length));
			const made = await bring({ hub, reader, repo, revision: state.sha, entry, directory, source, job, listed });
			if (made === null) return { kind: "vanished", reason: lost };
			manifests.set(id, made.manifest);
			publishable.push(made);
		}
		const outcome = await publishInto({
			hub,
			reader,
			targetRepo: repo,
			job,
			variants: publishable,
			siblings,
			newestSha: job.sourceSha,
			sign: request.sign ?? null,
			source,
			state,
			head,
		});
		return outcome.ok
			? { kind: "published", targetSha: outcome.targetSha, manifests }
			: { kind: "refused", refusal: outcome.refusal };
	} finally {
		await rm(folder, { recursive: true, force: true });
	}
}

/**
 * One variant's folder with every small file it will have; its weights stay where they are. `null`: a file that the
 * manifest names is missing from the repo, or another one.
 */
async function bring(request: {
	readonly hub: HubWriteAccess;
	readonly reader: HubAccess;
	readonly repo: string;
	readonly revision: string;
	readonly entry: PublishedManifest;
	readonly directory: string;
	readonly source: { readonly license: string | null };
	readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
	readonly listed: readonly { readonly path: string; readonly size: number }[];
}): Promise<PublishableVariant | null> {
	const { hub, reader, repo, revision, entry, directory, source, job, listed } = request;
	const before = entry.manifest;
	const parsed = parseRecipe(before.recipe);
	if (!parsed.ok) return null;
	const { container } = parsed.recipe.name;
	const files: Manifest["files"] = [];
	const inPlace = new Set<string>();

	async function keep(path: string, bytes: Uint8Array): Promise<void> {
		await mkdir(dirname(join(directory, path)), { recursive: true });
		await writeFile(join(directory, path), bytes);
	}

	// The files beside a merged model's weights are those of two repos; they are the same, or nothing was taken over.
	const base = before.source.base ?? null;
	for (const file of before.files) {
		if (base === null && isCopied(container, file.path)) continue;
		files.push(file);
		const stored = entry.files.find(({ path }) => path === file.path)?.listed;
		if (stored === undefined || (stored.sha256 ?? file.sha256) !== file.sha256) return null;
		if (stored.sha256 !== null && stored.path === file.path) {
			inPlace.add(file.path);
			continue;
		}
		const bytes = await downloadRepoFile(hub, repo, revision, stored.path);
		if (sha256Of(bytes) !== file.sha256) return null;
		await keep(file.path, bytes);
	}
	for (const { path, size } of listed) {
		if (base !== null || !isCopied(container, path) || size > MAXIMUM_COPIED_BYTES) continue;
		const bytes = await downloadRepoFile(reader, job.sourceRepo, job.sourceSha, path);
		await keep(path, bytes);
		files.push({ path, size: bytes.byteLength, sha256: sha256Of(bytes) });
	}
	const manifest: Manifest = {
		...before,
		source: {
			...before.source,
			repo: job.sourceRepo,
			revision: job.sourceSha,
			license: source.license ?? base?.license ?? null,
			measuredRevision: before.source.measuredRevision ?? before.source.revision,
		},
		files: files.toSorted((one, other) => (one.path < other.path ? -1 : 1)),
	};
	await keep("manifest.json", new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`));
	return { manifest, directory, inPlace };
}

function sha256Of(bytes: Uint8Array): string {
	return createHash("sha256").update(bytes).digest("hex");
}
