import { join } from "node:path";
import { downloadRepoFiles } from "../hub/download-repo-files.ts";
import type { HubAccess } from "../hub/hub-access.ts";
import type { StoredSketch } from "../protocol/job-spec.ts";
import { commitFiles, type FileContent } from "./commit-files.ts";
import { damaged, readSketch, SKETCH, type SketchRecord } from "./read-sketch.ts";
import { renderSketchCard, type SketchEntry } from "./sketch-card.ts";
import { head, INDEX, listFolder, openForWriting, readIndex, type Visibility, type Writer } from "./sketch-repo.ts";

type SketchStoreOptions = {
	/** Makes the repo and writes to it. */
	readonly writer: Writer;
	readonly reader: HubAccess;
	/** A data set repo. */
	readonly repo: string;
	readonly visibility: Visibility;
};

type Identity = { readonly repo: string; readonly sha: string; readonly fingerprint: string };

const CARD = "README.md";

function entryOf(
	{ repo: source, sha: revision }: Identity,
	{ key, kind, iterations, calibration, files }: SketchRecord,
	{ license, path }: { readonly license: string | null; readonly path: string },
): SketchEntry {
	const bytes = Object.values(files).reduce((sum, file) => sum + file.size, 0);
	return { source, revision, license, kind, iterations, calibration, key, path, bytes };
}

export function createSketchStore(options: SketchStoreOptions) {
	const { writer, reader, repo, visibility } = options;
	const folderOf = ({ repo: source, sha, fingerprint }: Identity): string => `${source}/${sha}/${fingerprint}`;

	return {
		/** Where the sketch is; `null` when it is not there, or not to be read. */
		async find(identity: Identity): Promise<StoredSketch | null> {
			const state = await head(reader, repo);
			if (state === null) return null;
			const path = folderOf(identity);
			const files = await listFolder(reader, { repo, revision: state.sha, path });
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
			const files = (await listFolder(reader, { ...stored, repo })).filter((file) => file.path.startsWith(prefix));
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
			if (record.key !== key) throw damaged("it is another one than the run reported");
			const state = await openForWriting(writer, repo, visibility);
			const path = folderOf(identity);
			const index = await readIndex(writer, repo, state.sha);
			const present = await listFolder(writer, { repo, revision: state.sha, path });
			const names = [SKETCH, ...Object.keys(record.files)];
			const known = index.find((entry) => entry.path === path);
			if (known?.key === key && names.every((name) => present.some((file) => file.path === `${path}/${name}`))) {
				return { repo, revision: state.sha, path };
			}
			const entry = entryOf(identity, record, { license, path });
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
