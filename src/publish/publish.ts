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
import { published, renderCard } from "./card.ts";
import { commitFiles, type FileContent } from "./commit-files.ts";
import { createPrivateRepo, repoState } from "./create-private-repo.ts";
import { type PlotPoint, plotPng } from "./plot.ts";
import { manifestPath, type PublishedManifest, readPublishedManifests } from "./published-manifests.ts";
import { readSourceCard, type SourceCard } from "./source-card.ts";

export const PLOT_PATH = "kl-by-size.png";
const CARD_PATH = "README.md";
const LICENCE_FILE = /^(LICENSE|LICENCE|NOTICE|USE_POLICY)(\.md|\.txt)?$/;
const MAXIMUM_LICENCE_BYTES = 2 ** 20;
/** What the Hub itself puts into a new repo. */
const BLANK_FILES: ReadonlySet<string> = new Set([".gitattributes"]);

type Access = HubAccess & { readonly accessToken: string };

export type PublishableVariant = {
	readonly manifest: Manifest;
	/** The verified folder: the manifest's files and `manifest.json`. */
	readonly directory: string;
};

export type PublishOutcome =
	| { readonly ok: true; readonly targetRepo: string; readonly targetSha: string; readonly url: string }
	| { readonly ok: false; readonly refusal: Refusal };

/**
 * Publishes verified variants that share a target repo. The repo is filled by one commit while nobody but the bot sees
 * it, or, when it is public already, changes by one commit from one whole state to the next; then it gets the source's
 * visibility and gating. Killed at any point and called again, it goes on from what the repo shows: the manifests in
 * its head say whether the commit was made.
 */
export async function publish(request: {
	/** With write rights on the target's namespace. */
	readonly hub: Access;
	/** Reads the source. */
	readonly reader: HubAccess;
	readonly targetRepo: string;
	readonly job: { readonly sourceRepo: string; readonly sourceSha: string };
	readonly variants: readonly PublishableVariant[];
	/** Other published variants of the same source, for the card. */
	readonly siblings: readonly { readonly targetRepo: string; readonly manifest: Manifest | null }[];
}): Promise<PublishOutcome> {
	const { hub, reader, targetRepo: repo, job, variants, siblings } = request;
	const source = await readSourceCard({ ...reader, repo: job.sourceRepo });
	if (source === null) {
		return refused(
			"repo-not-found",
			`The source ${job.sourceRepo} is gone or no longer readable, so nothing of it is published.`,
			"Restore the repo or the bot's access to it, then retry the job.",
		);
	}
	const state = await createPrivateRepo({ ...hub, repo });
	const head = await readPublishedManifests({ ...hub, repo, revision: state.sha });
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
		const content = await contentOf({ hub, reader, repo, source, job, variants, siblings, head, wanted });
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
	/** Manifests as text, by their path in the target repo. */
	readonly wanted: ReadonlyMap<string, string>;
}): Promise<
	| { readonly ok: true; readonly files: FileContent[]; readonly deleted: string[] }
	| { readonly ok: false; readonly refusal: Refusal }
> {
	const { hub, reader, repo, source, job, variants, siblings, head, wanted } = request;
	const kept = head.manifests.filter(({ path }) => !wanted.has(path)).map(({ manifest }) => manifest);
	const files = new Map<string, FileContent>();
	const hashes = new Map<string, string>();
	for (const manifest of kept) for (const file of manifest.files) hashes.set(file.path, file.sha256);
	for (const { manifest, directory } of variants) {
		for (const file of manifest.files) {
			const other = hashes.get(file.path);
			if (other !== undefined && other !== file.sha256 && !replaceable(file.path)) {
				return refused(
					"target-taken",
					`${repo} holds another ${file.path} from a variant that stays; publishing ${manifest.recipe} would break it.`,
					"Ask for the other variants of this repo again as well, so that all are made from the same source.",
				);
			}
			hashes.set(file.path, file.sha256);
			files.set(file.path, { path: file.path, from: "disk", source: join(directory, file.path) });
		}
	}
	for (const licence of await licenceFiles(reader, source.repo, job.sourceSha)) {
		if (!files.has(licence.path)) files.set(licence.path, licence);
	}
	const manifests = [...kept, ...variants.map(({ manifest }) => manifest)];
	const elsewhere = siblings.flatMap(({ targetRepo, manifest }) =>
		manifest === null || targetRepo === repo ? [] : [{ repo: targetRepo, manifest }],
	);
	const title = `${source.repo}: size and fidelity of its quantized files`;
	files.set(PLOT_PATH, {
		path: PLOT_PATH,
		from: "memory",
		content: Uint8Array.from(
			plotPng({ title, points: plotPoints([...manifests, ...elsewhere.map((other) => other.manifest)]) }),
		),
	});
	const card = await acceptableCard(hub, (inherited) =>
		renderCard({
			repo,
			hubUrl: hub.hubUrl,
			source: inherited ? source : { ...source, licenseLink: null, languages: [], pipelineTag: null },
			manifests,
			elsewhere,
			plotPath: PLOT_PATH,
		}),
	);
	files.set(CARD_PATH, { path: CARD_PATH, from: "memory", content: card });
	for (const [path, text] of wanted) files.set(path, { path, from: "memory", content: text });

	// What an earlier version of these variants had and no variant has now.
	const needed = new Set(manifests.flatMap((manifest) => manifest.files.map((file) => file.path)));
	const deleted = head.manifests
		.filter(({ path }) => wanted.has(path))
		.flatMap(({ manifest }) => manifest.files.map((file) => file.path))
		.filter((path) => !needed.has(path) && !files.has(path) && head.files.some((file) => file.path === path));
	return { ok: true, files: [...files.values()], deleted: [...new Set(deleted)] };
}

/** Small files that variants of one repo share and that a newer source may change without hurting the older variant. */
function replaceable(path: string): boolean {
	return !/\.(gguf|onnx|safetensors)$/.test(path) && !/\.onnx_data(_\d+)?$/.test(path);
}

export function plotPoints(manifests: readonly Manifest[]): PlotPoint[] {
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
		if (!LICENCE_FILE.test(file.path) || file.size > MAXIMUM_LICENCE_BYTES) continue;
		const blob = await downloadFile({
			...reader,
			repo: { type: "model", name: repo },
			path: file.path,
			revision,
			xet: false,
		});
		if (blob !== null) {
			copies.push({ path: file.path, from: "memory", content: new Uint8Array(await blob.arrayBuffer()) });
		}
	}
	return copies;
}

/** Before anybody sees it: what the Hub says it holds at this commit is what was verified, byte for byte. */
async function assertPublished(request: {
	readonly hub: Access;
	readonly repo: string;
	readonly sha: string;
	readonly variants: readonly PublishableVariant[];
}): Promise<void> {
	const { hub, repo, sha, variants } = request;
	const listed = new Map((await listRepoFiles({ ...hub, repo, revision: sha })).map((file) => [file.path, file]));
	for (const { manifest } of variants) {
		for (const file of manifest.files) {
			const found = listed.get(file.path);
			const same =
				found !== undefined && found.size === file.size && (found.sha256 === null || found.sha256 === file.sha256);
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
