import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Refusal } from "../errors.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { listRepoFiles } from "../hub/list-repo-files.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { repoState } from "./create-private-repo.ts";
import { download, type PublishableVariant, publish } from "./publish.ts";
import { manifestPath, type PublishedManifest, readPublishedManifests } from "./published-manifests.ts";
import { readSourceCard } from "./source-card.ts";

type Access = HubAccess & { readonly accessToken: string };

export type RepublishOutcome =
	| { readonly ok: true; readonly targetSha: string; readonly manifests: ReadonlyMap<string, Manifest> }
	| { readonly ok: false; readonly refusal: Refusal };

/** What the containers copy from their source as it stands; a GGUF file carries the first group inside. */
const COMPANION =
	/^(tokenizer\.json|tokenizer_config\.json|tokenizer\.model|special_tokens_map\.json|added_tokens\.json|vocab\.json|vocab\.txt|merges\.txt|chat_template\.(jinja|json)|generation_config\.json)$/;
const LICENCE = /^(LICENSE(\.md|\.txt)?|NOTICE(\.md|\.txt)?|USE_POLICY\.md)$/;
const MAXIMUM_COMPANION_BYTES = 256 * 2 ** 20;

/**
 * Brings published variants to a newer commit of their source that left the weights alone: no run, no new weights. The
 * new tokenizer, template, settings and licence take the place of the old where the container keeps them as files; the
 * manifest names both commits, the one that the files are of and the one that was measured. Verified like every
 * publication: what the Hub holds afterwards is what the manifests say, byte for byte.
 */
export async function republish(request: {
	readonly hub: Access;
	readonly reader: HubAccess;
	readonly targetRepo: string;
	readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
	/** `fromSha`: the commit that the variant is of. */
	readonly variants: readonly { readonly id: string; readonly recipe: string; readonly fromSha: string }[];
	readonly siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[];
}): Promise<RepublishOutcome> {
	const { hub, reader, targetRepo: repo, job, variants, siblings } = request;
	const state = await repoState({ ...hub, repo });
	const source = await readSourceCard({ ...reader, repo: job.sourceRepo });
	if (state === null || source === null) {
		return gone(`${state === null ? repo : job.sourceRepo} is gone or no longer readable.`);
	}
	const head = await readPublishedManifests({ ...hub, repo, revision: state.sha });
	const listed = await listRepoFiles({ ...reader, repo: job.sourceRepo, revision: job.sourceSha });
	const folder = await mkdtemp(join(tmpdir(), "yaqa-republish-"));
	try {
		const manifests = new Map<string, Manifest>();
		const publishable: PublishableVariant[] = [];
		for (const { id, recipe, fromSha } of variants) {
			const entry = head.manifests.find(({ path }) => path === manifestPath(recipe));
			const revision = entry?.manifest.source.revision;
			if (entry === undefined || (revision !== fromSha && revision !== job.sourceSha)) {
				return gone(`${repo} no longer holds ${recipe} of commit ${fromSha.slice(0, 8)}.`);
			}
			const directory = join(folder, String(publishable.length));
			const made = await bring({ hub, reader, repo, revision: state.sha, entry, directory, source, job, listed });
			manifests.set(id, made.manifest);
			publishable.push(made);
		}
		const outcome = await publish({
			hub,
			reader,
			targetRepo: repo,
			job,
			variants: publishable,
			siblings,
			newestSha: job.sourceSha,
		});
		return outcome.ok ? { ok: true, targetSha: outcome.targetSha, manifests } : outcome;
	} finally {
		await rm(folder, { recursive: true, force: true });
	}
}

/** One variant's folder with every small file it will have; its weights stay where they are. */
async function bring(request: {
	readonly hub: Access;
	readonly reader: HubAccess;
	readonly repo: string;
	readonly revision: string;
	readonly entry: PublishedManifest;
	readonly directory: string;
	readonly source: { readonly license: string | null };
	readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
	readonly listed: readonly { readonly path: string; readonly size: number }[];
}): Promise<PublishableVariant> {
	const { hub, reader, repo, revision, entry, directory, source, job, listed } = request;
	const before = entry.manifest;
	const isInside = before.recipe.startsWith("gguf");
	const isCopied = (path: string): boolean => LICENCE.test(path) || (!isInside && COMPANION.test(path));
	const files: Manifest["files"] = [];
	const inPlace = new Set<string>();

	async function keep(path: string, bytes: Uint8Array): Promise<void> {
		await mkdir(dirname(join(directory, path)), { recursive: true });
		await writeFile(join(directory, path), bytes);
	}

	for (const file of before.files) {
		if (isCopied(file.path)) continue;
		files.push(file);
		const stored = entry.files.find(({ path }) => path === file.path)?.listed;
		if (stored?.sha256 === file.sha256 && stored.path === file.path) inPlace.add(file.path);
		else await keep(file.path, await download(hub, repo, revision, stored?.path ?? file.path));
	}
	for (const { path, size } of listed) {
		if (!isCopied(path) || size > MAXIMUM_COMPANION_BYTES) continue;
		const bytes = await download(reader, job.sourceRepo, job.sourceSha, path);
		await keep(path, bytes);
		files.push({ path, size: bytes.byteLength, sha256: createHash("sha256").update(bytes).digest("hex") });
	}
	const manifest: Manifest = {
		...before,
		source: {
			repo: job.sourceRepo,
			revision: job.sourceSha,
			license: source.license,
			measuredRevision: before.source.measuredRevision ?? before.source.revision,
		},
		files: files.toSorted((one, other) => (one.path < other.path ? -1 : 1)),
	};
	await keep("manifest.json", new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`));
	return { manifest, directory, inPlace };
}

function gone(message: string): RepublishOutcome {
	return {
		ok: false,
		refusal: {
			code: "repo-not-found",
			message: `${message} Its weights cannot be taken over.`,
			remedy: "Retry the job: the variants are then made by a run.",
		},
	};
}
