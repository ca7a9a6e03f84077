import { readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { deleteRepo } from "@huggingface/hub";
import { diskFull, isDiskFull } from "../disk-full.ts";
import type { Refusal } from "../errors.ts";
import { downloadRepoFiles } from "../hub/download-repo-files.ts";
import { isRepoFile } from "../hub/file-hash.ts";
import type { HubWriteAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listRepoFiles } from "../hub/list-repo-files.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { recipeDirectory } from "../protocol/recipe.ts";
import { commitFiles, type FileContent } from "./commit-files.ts";
import { createPrivateRepo, repoState } from "./create-private-repo.ts";
import { stagingRepo } from "./names.ts";

const VERIFICATION_NAME = "verification.safetensors";

type Outcome = { readonly ok: true } | { readonly ok: false; readonly refusal: Refusal };

/** Uploads every variant of a job, and its verification tensors, to the job's private repo, in one commit. */
export async function stage(request: {
	readonly hub: HubWriteAccess;
	readonly namespace: string;
	readonly job: { readonly id: string };
	readonly variants: readonly { readonly variant: { readonly recipe: string }; readonly directory: string }[];
	readonly verificationPath: string;
}): Promise<{ readonly ok: true; readonly stagingRepo: string } | { readonly ok: false; readonly refusal: Refusal }> {
	const { hub, namespace, job, variants, verificationPath } = request;
	const repo = stagingRepo({ namespace, jobId: job.id });
	const state = await createPrivateRepo({ ...hub, repo });
	if (!state.private) {
		return {
			ok: false,
			refusal: {
				code: "target-taken",
				message: `${repo} exists and is public; unverified files are staged in private only.`,
				remedy: "The operator deletes that repo or makes it private, then retries the job.",
			},
		};
	}
	const files: (FileContent & { readonly from: "disk" })[] = [
		{ path: VERIFICATION_NAME, from: "disk", source: verificationPath },
	];
	for (const { variant, directory } of variants) {
		for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
			if (!entry.isFile()) continue;
			const source = join(entry.parentPath, entry.name);
			const path = relative(directory, source).split(sep).join("/");
			files.push({ path: `${recipeDirectory(variant.recipe)}/${path}`, from: "disk", source });
		}
	}
	const present = (await listRepoFiles({ ...hub, repo, revision: state.sha })).filter(
		(file) => file.path !== ".gitattributes",
	);
	const staged = new Map(present.map((file) => [file.path, file]));
	const missing: FileContent[] = [];
	for (const file of files) {
		const listed = staged.get(file.path);
		if (listed === undefined || !(await isRepoFile(file.source, listed))) missing.push(file);
	}
	const wanted = new Set(files.map((file) => file.path));
	const deleted = present.filter((file) => !wanted.has(file.path)).map((file) => file.path);
	if (missing.length > 0 || deleted.length > 0) {
		await commitFiles({ ...hub, repo, parent: state.sha, title: "Stage for verification", files: missing, deleted });
	}
	return { ok: true, stagingRepo: repo };
}

/** Downloads what `stage` uploaded: `DIRECTORY/<recipe's folder>/…` and `DIRECTORY/verification.safetensors`. */
export async function fetchStaged(request: {
	readonly hub: HubWriteAccess;
	readonly namespace: string;
	readonly job: { readonly id: string };
	readonly variants: readonly { readonly recipe: string; readonly manifest: Manifest | null }[];
	readonly directory: string;
}): Promise<Outcome> {
	const { hub, namespace, job, variants, directory } = request;
	const repo = stagingRepo({ namespace, jobId: job.id });
	const state = await repoState({ ...hub, repo });
	if (state === null) return lost(repo, "is gone");
	const folders = variants.map((variant) => `${recipeDirectory(variant.recipe)}/`);
	const listed = await listRepoFiles({ ...hub, repo, revision: state.sha });
	const files = listed.filter(
		(file) => file.path === VERIFICATION_NAME || folders.some((folder) => file.path.startsWith(folder)),
	);
	for (const variant of variants) {
		const folder = `${recipeDirectory(variant.recipe)}/`;
		for (const file of variant.manifest?.files ?? []) {
			const found = files.find((candidate) => candidate.path === `${folder}${file.path}`);
			if (found === undefined) return lost(repo, `lacks ${folder}${file.path}`);
			// Before the bytes are fetched: a replaced file is not worth the disk it would take.
			if (found.size !== file.size) return lost(repo, `holds another ${folder}${file.path} than was staged`);
		}
	}
	try {
		await downloadRepoFiles({ ...hub, repo, revision: state.sha, files, directory });
		return { ok: true };
	} catch (error) {
		if (!isDiskFull(error)) throw error;
		return { ok: false, refusal: diskFull("the staged files") };
	}
}

/** Deletes a job's staging repo; that there is none is fine. */
export async function removeStaging(request: {
	readonly hub: HubWriteAccess;
	readonly namespace: string;
	readonly job: { readonly id: string };
}): Promise<void> {
	const { hub, namespace, job } = request;
	const name = stagingRepo({ namespace, jobId: job.id });
	try {
		await deleteRepo({ ...hub, repo: { type: "model", name } });
	} catch (error) {
		if (hubStatus(error) !== 404) throw error;
	}
}

function lost(repo: string, what: string): Outcome {
	return {
		ok: false,
		refusal: {
			code: "verification-failed",
			message: `The staging repo ${repo} ${what}.`,
			remedy: "Nothing was published. Retry the job; if it happens again, see who else can write to that namespace.",
		},
	};
}
