import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { downloadFile } from "@huggingface/hub";
import { PermanentError, type Refusal, RetryableError } from "../errors.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listRepoFiles, type RepoFile } from "../hub/list-repo-files.ts";
import { updateRepoSettings } from "../hub/update-repo-settings.ts";
import { validateYaml } from "../hub/validate-yaml.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { isOfKind } from "../protocol/source-files.ts";
import { type CardRequest, published, renderCard } from "./card.ts";
import { commitFiles, type FileContent } from "./commit-files.ts";
import { createPrivateRepo, type RepoState, repoState } from "./create-private-repo.ts";
import { type PlotPoint, plotPng } from "./plot.ts";
import { manifestPath, type PublishedManifest, readPublishedManifests } from "./published-manifests.ts";
import { isShareable, mergeConfigs, ownVersionPath } from "./shared-files.ts";
import { readSourceCard, type SourceCard } from "./source-card.ts";

const PLOT_PATH = "kl-by-size.png";
export const CARD_PATH = "README.md";
const MAXIMUM_LICENCE_BYTES = 2 ** 20;
/** What the Hub itself puts into a new repo. */
const BLANK_FILES: ReadonlySet<string> = new Set([".gitattributes"]);

type Access = HubAccess & { readonly accessToken: string };

export type PublishableVariant = {
	readonly manifest: Manifest;
	/** The verified folder: the manifest's files and `manifest.json`. */
	readonly directory: string;
	/** Files that the target's head holds already and `directory` lacks. */
	readonly inPlace?: ReadonlySet<string>;
};

export type PublishOutcome =
	| { readonly ok: true; readonly targetRepo: string; readonly targetSha: string; readonly url: string }
	| { readonly ok: false; readonly refusal: Refusal };

type PublishRequest = {
	/** With write rights on the target's namespace. */
	readonly hub: Access;
	/** Reads the source. */
	readonly reader: HubAccess;
	readonly targetRepo: string;
	readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
	readonly variants: readonly PublishableVariant[];
	/** Other published variants of the same source, for the card. */
	readonly siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[];
	/** The newest commit of the source, by which older variants are marked; `null`: not known. */
	readonly newestSha?: string | null;
};

/**
 * Publishes verified variants that share a target repo. The repo is filled by one commit while nobody but the bot sees
 * it, or, when it is public already, changes by one commit from one whole state to the next; then it gets the source's
 * visibility and gating. Killed at any point and called again, it goes on from what the repo shows: the manifests in
 * its head say whether the commit was made.
 */
export async function publish(request: PublishRequest): Promise<PublishOutcome> {
	const { hub, reader, targetRepo: repo, job } = request;
	const source = await readSourceCard({ ...reader, repo: job.sourceRepo });
	if (source === null) return sourceGone(job.sourceRepo);
	const state = await createPrivateRepo({ ...hub, repo });
	const head = await readPublishedManifests({ ...hub, repo, revision: state.sha });
	return await publishInto({ ...request, source, state, head });
}

export function sourceGone(sourceRepo: string): { readonly ok: false; readonly refusal: Refusal } {
	return refused(
		"repo-not-found",
		`The source ${sourceRepo} is gone or no longer readable, so nothing of it is published.`,
		"Restore the repo or the bot's access to it, then retry the job.",
	);
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
	const taken = whyTaken(repo, job.sourceRepo, head);
	if (taken !== null) return { ok: false, refusal: taken };

	const wanted = new Map<string, string>();
	for (const { manifest, directory } of variants) {
		wanted.set(manifestPath(manifest.recipe), await readFile(join(directory, "manifest.json"), "utf8"));
	}
	const done = [...wanted].every(([path, text]) =>
		head.manifests.some((known) => known.path === path && known.text === text),
	);
	let sha = state.sha;
	if (!done) {
		const content = await contentOf({
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
	const visibility = source.private ? "private" : "public";
	await updateRepoSettings({ ...hub, repo, settings: { visibility, gated: source.gated } });
	const final = await repoState({ ...hub, repo });
	if (final === null || final.private !== source.private) {
		throw new RetryableError(`${repo} did not take over the visibility of its source.`);
	}
	return { ok: true, targetRepo: repo, targetSha: sha, url: `${hub.hubUrl}/${repo}` };
}

/** A repo is ours when every manifest in it is of this source, and there is one, or nothing is there at all. */
function whyTaken(
	repo: string,
	sourceRepo: string,
	head: { readonly files: readonly RepoFile[]; readonly manifests: readonly PublishedManifest[] },
): Refusal | null {
	const remedy = `The operator moves or deletes ${repo}, or sets another publish.namespace, then retries the job.`;
	const foreign = head.manifests.find(({ manifest }) => manifest.source.repo !== sourceRepo);
	if (foreign !== undefined) {
		return {
			code: "target-taken",
			message: `${repo} holds variants of another model, ${foreign.manifest.source.repo}; nothing was changed there.`,
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

async function contentOf(request: {
	readonly hub: Access;
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
	for (const [path, text] of wanted) files.set(path, { path, from: "memory", content: text });

	// What an earlier version of these variants had and no variant has now.
	const needed = new Set(manifests.flatMap((manifest) => manifest.files.map((file) => file.path)));
	const deleted = head.manifests
		.filter(({ path }) => wanted.has(path))
		.flatMap((entry) => entry.files.map(({ listed }) => listed.path))
		.filter((path) => !needed.has(path) && !files.has(path));
	return { ok: true, files: [...files.values()], deleted: [...new Set(deleted)] };
}

export function elsewhereOf(
	repo: string,
	siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[],
): readonly { readonly repo: string; readonly manifest: Manifest }[] {
	return siblings.flatMap(({ targetRepo, manifest }) =>
		manifest === null || targetRepo === repo ? [] : [{ repo: targetRepo, manifest }],
	);
}

/** The card as the Hub takes it. */
export function cardOf(request: { readonly hub: Access } & Omit<CardRequest, "hubUrl" | "plotPath">): Promise<string> {
	const { hub, source, ...rest } = request;
	return acceptableCard(hub, (inherited) =>
		renderCard({
			...rest,
			hubUrl: hub.hubUrl,
			source: inherited ? source : { ...source, licenseLink: null, languages: [], pipelineTag: null },
			plotPath: PLOT_PATH,
		}),
	);
}

/** What must be written because variants of this repo have different versions of one path. */
async function shareFiles(request: {
	readonly hub: Access;
	readonly repo: string;
	readonly revision: string;
	readonly variants: readonly PublishableVariant[];
	readonly kept: readonly PublishedManifest[];
}): Promise<
	{ readonly ok: true; readonly files: readonly FileContent[] } | { readonly ok: false; readonly refusal: Refusal }
> {
	const { hub, repo, revision, variants, kept } = request;
	type Version = {
		readonly own: string;
		readonly sha256: string;
		readonly read: () => Promise<Uint8Array<ArrayBuffer>>;
	};
	const versions = new Map<string, Version[]>();
	const add = (path: string, version: Version): void => {
		versions.set(path, [...(versions.get(path) ?? []), version]);
	};
	// Newest first: its version is the one that the others are merged into.
	for (const { manifest, directory } of variants) {
		for (const { path, sha256 } of manifest.files) {
			const own = ownVersionPath(manifestPath(manifest.recipe), path);
			add(path, { own, sha256, read: async () => new Uint8Array(await readFile(join(directory, path))) });
		}
	}
	for (const entry of kept) {
		for (const { path, listed } of entry.files) {
			const sha256 = entry.manifest.files.find((file) => file.path === path)?.sha256 ?? "";
			add(path, {
				own: ownVersionPath(entry.path, path),
				sha256,
				read: () => download(hub, repo, revision, listed.path),
			});
		}
	}
	const files: FileContent[] = [];
	for (const [path, found] of versions) {
		if (new Set(found.map((version) => version.sha256)).size < 2) continue;
		if (!isShareable(path)) {
			return refused(
				"target-taken",
				`${repo} would hold two different files named ${path}; nothing was changed there.`,
				"Ask for the other variants of this repo again as well, so that all are made from the same source.",
			);
		}
		const contents = await Promise.all(found.map((version) => version.read()));
		const [newest = new Uint8Array(), ...others] = contents;
		const root =
			path === "config.json" ? new TextEncoder().encode(mergeConfigs(text(newest), others.map(text))) : newest;
		const rootSha256 = createHash("sha256").update(root).digest("hex");
		files.push({ path, from: "memory", content: root });
		found.forEach((version, index) => {
			const content = contents[index];
			if (content !== undefined && version.sha256 !== rootSha256) {
				files.push({ path: version.own, from: "memory", content });
			}
		});
	}
	return { ok: true, files };
}

function text(bytes: Uint8Array): string {
	return new TextDecoder().decode(bytes);
}

function plotPoints(manifests: readonly Manifest[]): PlotPoint[] {
	return manifests.flatMap((manifest) =>
		manifest.evaluation.measured.map((measured) => ({
			label: manifest.recipe,
			bytes: published(manifest).bytes,
			quantizer: measured.quantizer,
			klNats: measured.report.klNats,
		})),
	);
}

/** The card, without what it inherits if the Hub's own check refuses that: a bad field of a source is no reason to fail. */
async function acceptableCard(hub: Access, render: (inherited: boolean) => string): Promise<string> {
	let errors: readonly string[] = [];
	for (const inherited of [true, false]) {
		const card = render(inherited);
		try {
			({ errors } = await validateYaml({ ...hub, content: card }));
		} catch (error) {
			// A Hub without this check has no opinion.
			if (hubStatus(error) !== 404 && hubStatus(error) !== 405) throw error;
			errors = [];
		}
		if (errors.length === 0) return card;
	}
	throw new PermanentError({
		code: "internal",
		message: `The Hub does not accept the model card's front matter: ${errors.join("; ").slice(0, 300)}`,
		remedy: "This is a bug in yaqa-bot; please report it with this message.",
	});
}

async function licenceFiles(reader: HubAccess, repo: string, revision: string): Promise<FileContent[]> {
	const listed = await listRepoFiles({ ...reader, repo, revision });
	const copies: FileContent[] = [];
	for (const file of listed) {
		if (!isOfKind(file.path, "licence") || file.size > MAXIMUM_LICENCE_BYTES) continue;
		copies.push({ path: file.path, from: "memory", content: await download(reader, repo, revision, file.path) });
	}
	return copies;
}

export async function download(
	hub: HubAccess,
	repo: string,
	revision: string,
	path: string,
): Promise<Uint8Array<ArrayBuffer>> {
	const blob = await downloadFile({ ...hub, repo: { type: "model", name: repo }, path, revision, xet: false });
	if (blob === null) throw new RetryableError(`${path} is no longer in ${repo}.`);
	return new Uint8Array(await blob.arrayBuffer());
}

/** Before anybody sees it: what the Hub says it holds at this commit is what was verified, byte for byte. */
async function assertPublished(request: {
	readonly hub: Access;
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

function refused(
	code: Refusal["code"],
	message: string,
	remedy: string,
): { readonly ok: false; readonly refusal: Refusal } {
	return { ok: false, refusal: { code, message, remedy } };
}
