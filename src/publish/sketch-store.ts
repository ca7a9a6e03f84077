import { lstat, readFile } from "node:fs/promises";
import { join } from "node:path";
import { createRepo, datasetInfo, downloadFile } from "@huggingface/hub";
import { z } from "zod";
import { PermanentError, RetryableError } from "../errors.ts";
import { downloadRepoFiles } from "../hub/download-repo-files.ts";
import { fileSha256 } from "../hub/file-hash.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import { hubStatus } from "../hub/hub-request-error.ts";
import { listRepoFiles, type RepoFile } from "../hub/list-repo-files.ts";
import type { StoredSketch } from "../protocol/job-spec.ts";
import { sha256Hex } from "../protocol/manifest.ts";
import { commitFiles, type FileContent } from "./commit-files.ts";
import { renderSketchCard, SketchEntry } from "./sketch-card.ts";

type SketchStoreOptions = {
	/** Makes the repo and writes to it. */
	readonly writer: HubAccess & { readonly accessToken: string };
	readonly reader: HubAccess;
	/** A data set repo. */
	readonly repo: string;
	readonly visibility: "private" | "public";
};

type Identity = { readonly repo: string; readonly sha: string; readonly fingerprint: string };

const SKETCH = "sketch.json";
const INDEX = "index.jsonl";
const CARD = "README.md";
const MAXIMUM_RECORD_BYTES = 64 * 1024 * 1024;
const MAXIMUM_INDEX_BYTES = 16 * 1024 * 1024;

/** What is read of the runner's `sketch.json`. */
const SketchRecord = z.object({
	key: sha256Hex,
	kind: z.string().max(20),
	iterations: z.int(),
	calibration: z.object({ sha256: sha256Hex, sequences: z.int(), length: z.int() }),
	files: z.record(
		z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors$/),
		z.object({ size: z.int().min(0), sha256: sha256Hex }),
	),
});
type SketchRecord = z.infer<typeof SketchRecord>;

function damaged(what: string, cause?: unknown): PermanentError {
	return new PermanentError(
		{
			code: "verification-failed",
			message: `The sketch is not stored: ${what}.`,
			remedy: "Nothing: the next job on this model takes a new one.",
		},
		{ cause },
	);
}

/** `sketch.json` of a folder whose files are all there and as it says; nothing else of the folder is looked at. */
async function readSketch(directory: string): Promise<SketchRecord> {
	const path = join(directory, SKETCH);
	let record: SketchRecord;
	try {
		const entry = await lstat(path);
		if (!entry.isFile() || entry.size > MAXIMUM_RECORD_BYTES) throw new Error("It is no plain file, or too long.");
		record = SketchRecord.parse(JSON.parse(await readFile(path, "utf8")));
	} catch (error) {
		throw damaged(`${SKETCH} cannot be read`, error);
	}
	for (const [name, expected] of Object.entries(record.files)) {
		const file = join(directory, name);
		const entry = await lstat(file).catch(() => null);
		if (entry === null || !entry.isFile() || entry.size !== expected.size) throw damaged(`${name} is not as listed`);
		if ((await fileSha256(file)) !== expected.sha256) throw damaged(`${name} is damaged`);
	}
	return record;
}

export function createSketchStore(options: SketchStoreOptions) {
	const { writer, reader, repo, visibility } = options;
	const designation = { type: "dataset", name: repo } as const;
	const folderOf = ({ repo: source, sha, fingerprint }: Identity): string => `${source}/${sha}/${fingerprint}`;

	async function head(access: HubAccess): Promise<{ readonly sha: string; readonly private: boolean } | null> {
		try {
			const info = await datasetInfo({ ...access, name: repo, revision: "main", additionalFields: ["sha"] });
			return { sha: String(info.sha), private: info.private };
		} catch (error) {
			// A private repo that this token may not read looks like none.
			if ([401, 403, 404].includes(hubStatus(error) ?? 0)) return null;
			throw error;
		}
	}

	async function listFolder(access: HubAccess, revision: string, path: string): Promise<readonly RepoFile[]> {
		try {
			return await listRepoFiles({ ...access, repo, kind: "dataset", revision, path });
		} catch (error) {
			if (hubStatus(error) === 404) return [];
			throw error;
		}
	}

	async function readIndex(revision: string): Promise<readonly SketchEntry[]> {
		const blob = await downloadFile({ ...writer, repo: designation, path: INDEX, revision, xet: false });
		if (blob === null) return [];
		if (blob.size > MAXIMUM_INDEX_BYTES) throw damaged(`${INDEX} of ${repo} is too long`);
		return (await blob.text()).split("\n").flatMap((line) => {
			if (line === "") return [];
			try {
				return [SketchEntry.parse(JSON.parse(line))];
			} catch {
				// Somebody's own line is not kept by us.
				return [];
			}
		});
	}

	async function openForWriting(): Promise<{ readonly sha: string; readonly private: boolean }> {
		let state = await head(writer);
		if (state === null) {
			try {
				await createRepo({ ...writer, repo: designation, visibility });
			} catch (error) {
				const status = hubStatus(error);
				if (status === 401 || status === 402 || status === 403) {
					throw new PermanentError(
						{
							code: "not-permitted",
							message: `The bot's token may not create ${repo}.`,
							remedy: "The operator gives the publishing token write access to the namespace of sketches.repo.",
						},
						{ cause: error },
					);
				}
				if (status !== 409) throw error;
			}
			state = await head(writer);
			if (state === null) throw new RetryableError(`${repo} was created, but the Hub does not show it yet.`);
		}
		if (visibility === "private" && !state.private) {
			throw new PermanentError({
				code: "not-permitted",
				message: `${repo} is public; sketches are to be kept in private.`,
				remedy: "The operator makes that repo private, or sets sketches.visibility to public.",
			});
		}
		return state;
	}

	return {
		/** Where the sketch is; `null` when it is not there, or not to be read. */
		async find(identity: Identity): Promise<StoredSketch | null> {
			const state = await head(reader);
			if (state === null) return null;
			const path = folderOf(identity);
			const files = await listFolder(reader, state.sha, path);
			return files.some((file) => file.path === `${path}/${SKETCH}`) ? { repo, revision: state.sha, path } : null;
		},

		/** Where `keep` put it. */
		placeOf: (identity: Identity, revision: string): StoredSketch => ({ repo, revision, path: folderOf(identity) }),

		/** Brings a stored sketch into `directory`, every file whole and as its `sketch.json` says; the runner's key of it. */
		async bring(request: {
			readonly stored: StoredSketch;
			readonly directory: string;
			readonly signal: AbortSignal;
		}): Promise<{ readonly key: string }> {
			const { stored, directory, signal } = request;
			const prefix = `${stored.path}/`;
			const files = (await listFolder(reader, stored.revision, stored.path)).filter((file) =>
				file.path.startsWith(prefix),
			);
			await downloadRepoFiles({
				...reader,
				repo: stored.repo,
				kind: "dataset",
				revision: stored.revision,
				files,
				directory,
				place: (path) => path.slice(prefix.length),
				signal,
			});
			const { key } = await readSketch(directory);
			return { key };
		},

		/**
		 * Puts the sketch in `directory` into the repo, with its line in the index and the card, in one commit. Found done,
		 * it is left as it is.
		 */
		async keep(request: {
			readonly identity: Identity;
			readonly key: string;
			readonly license: string | null;
			readonly directory: string;
		}): Promise<StoredSketch> {
			const { identity, key, license, directory } = request;
			const record = await readSketch(directory);
			if (record.key !== key) throw damaged("it is another one than the run told of");
			const state = await openForWriting();
			const path = folderOf(identity);
			const index = await readIndex(state.sha);
			const present = await listFolder(writer, state.sha, path);
			const names = [SKETCH, ...Object.keys(record.files)];
			const known = index.find((entry) => entry.path === path);
			if (known?.key === key && names.every((name) => present.some((file) => file.path === `${path}/${name}`))) {
				return { repo, revision: state.sha, path };
			}
			const bytes = Object.values(record.files).reduce((sum, file) => sum + file.size, 0);
			const entry: SketchEntry = {
				source: identity.repo,
				revision: identity.sha,
				license,
				kind: record.kind,
				iterations: record.iterations,
				calibration: record.calibration,
				key,
				path,
				bytes,
			};
			const entries = [...index.filter((other) => other.path !== path), entry];
			const files: FileContent[] = names.map((name) => ({
				path: `${path}/${name}`,
				from: "disk",
				source: join(directory, name),
			}));
			const lines = entries.map((one) => `${JSON.stringify(one)}\n`).join("");
			files.push({ path: INDEX, from: "memory", content: lines });
			files.push({ path: CARD, from: "memory", content: renderSketchCard({ repo, entries }) });
			const revision = await commitFiles({
				...writer,
				repo,
				kind: "dataset",
				parent: state.sha,
				title: `Add the sketch of ${identity.repo}`,
				files,
				deleted: present.map((file) => file.path).filter((old) => !names.includes(old.slice(path.length + 1))),
			});
			return { repo, revision, path };
		},
	};
}
