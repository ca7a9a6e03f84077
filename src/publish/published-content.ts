import { join } from "node:path";
import type { Refusal } from "../errors.ts";
import { downloadRepoFile } from "../hub/download-repo-file.ts";
import type { HubAccess, HubWriteAccess } from "../hub/hub-access.ts";
import { listRepoFiles, type RepoFile } from "../hub/list-repo-files.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { isOfKind } from "../protocol/source-files.ts";
import { published } from "./card/published-measurement.ts";

import type { FileContent } from "./commit-files.ts";
import { type ManifestSigner, signaturePath } from "./manifest-signature.ts";
import type { PlotPoint } from "./plot.ts";
import { plotPng } from "./plot-png.ts";
import type { PublishableVariant } from "./publishable-variant.ts";
import type { PublishedManifest } from "./published-manifests.ts";
import { CARD_PATH, cardOf, elsewhereOf, PLOT_PATH } from "./repo-card.ts";
import { shareFiles } from "./shared-content.ts";
import type { SourceCard } from "./source-card.ts";

const MAXIMUM_LICENCE_BYTES = 2 ** 20;

export async function publishedContent(request: {
	readonly hub: HubWriteAccess;
	readonly reader: HubAccess;
	readonly repo: string;
	readonly source: SourceCard;
	readonly job: { readonly sourceSha: string };
	readonly variants: readonly PublishableVariant[];
	readonly siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[];
	readonly head: { readonly files: readonly RepoFile[]; readonly manifests: readonly PublishedManifest[] };
	readonly headSha: string;
	/** Manifests as text, by their path in the target repo. */
	readonly wanted: ReadonlyMap<string, string>;
	readonly newestSha: string | null;
	readonly sign: ManifestSigner | null;
}): Promise<
	| { readonly ok: true; readonly files: FileContent[]; readonly deleted: string[] }
	| { readonly ok: false; readonly refusal: Refusal }
> {
	const { hub, reader, repo, source, job, variants, siblings, head, wanted } = request;
	const keptEntries = head.manifests.filter(({ path }) => !wanted.has(path));
	const kept = keptEntries.map(({ manifest }) => manifest);
	const files = new Map<string, FileContent>();
	for (const { manifest, directory, inPlace } of variants) {
		for (const file of manifest.files) {
			if (inPlace?.has(file.path) === true) continue;
			files.set(file.path, { path: file.path, from: "disk", source: join(directory, file.path) });
		}
	}
	const shared = await shareFiles({ hub, repo, revision: request.headSha, variants, kept: keptEntries });
	if (!shared.ok) return shared;
	for (const file of shared.files) files.set(file.path, file);
	for (const licence of await licenceFiles(reader, source.repo, job.sourceSha)) {
		if (!files.has(licence.path)) files.set(licence.path, licence);
	}
	const manifests = [...kept, ...variants.map(({ manifest }) => manifest)];
	const elsewhere = elsewhereOf(repo, siblings);
	const title = `${source.repo}: size and fidelity of its quantized files`;
	files.set(PLOT_PATH, {
		path: PLOT_PATH,
		from: "memory",
		content: Uint8Array.from(
			plotPng({ title, points: plotPoints([...manifests, ...elsewhere.map((other) => other.manifest)]) }),
		),
	});
	const card = await cardOf({ hub, repo, source, manifests, elsewhere, newestSha: request.newestSha });
	files.set(CARD_PATH, { path: CARD_PATH, from: "memory", content: card });
	const stale: string[] = [];
	for (const [path, text] of wanted) {
		files.set(path, { path, from: "memory", content: text });
		const signature = signaturePath(path);
		if (request.sign !== null) files.set(signature, { path: signature, from: "memory", content: request.sign(text) });
		// The signature of an earlier manifest is none of this one's.
		else if (head.files.some((file) => file.path === signature)) stale.push(signature);
	}

	// What an earlier version of these variants had and no variant has now.
	const needed = new Set(manifests.flatMap((manifest) => manifest.files.map((file) => file.path)));
	const deleted = head.manifests
		.filter(({ path }) => wanted.has(path))
		.flatMap((entry) => entry.files.map(({ listed }) => listed.path))
		.filter((path) => !needed.has(path) && !files.has(path));
	return { ok: true, files: [...files.values()], deleted: [...new Set([...deleted, ...stale])] };
}

function plotPoints(manifests: readonly Manifest[]): PlotPoint[] {
	return manifests.flatMap((manifest) =>
		manifest.evaluation.measured.map((measured) => ({
			label: manifest.recipe,
			bytes: published(manifest).bytes,
			quantizer: measured.quantizer,
			published: measured.quantizer === manifest.quantizer,
			klNats: measured.report.klNats,
		})),
	);
}

async function licenceFiles(reader: HubAccess, repo: string, revision: string): Promise<FileContent[]> {
	const listed = await listRepoFiles({ ...reader, repo, revision });
	const copies: FileContent[] = [];
	for (const file of listed) {
		if (!isOfKind(file.path, "licence") || file.size > MAXIMUM_LICENCE_BYTES) continue;
		copies.push({
			path: file.path,
			from: "memory",
			content: await downloadRepoFile(reader, repo, revision, file.path),
		});
	}
	return copies;
}
