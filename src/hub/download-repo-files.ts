import { createWriteStream } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { downloadFile } from "@huggingface/hub";
import { PermanentError, RetryableError } from "../errors.ts";
import { isRepoFile } from "./file-hash.ts";
import type { HubAccess, RepoKind } from "./hub-access.ts";
import type { RepoFile } from "./list-repo-files.ts";

const PARALLEL_DOWNLOADS = 4;

/**
 * Brings files of a repo into `directory`, each under its own path, or where `place` puts it. A file appears under its
 * name only when it is whole and its hash is the listed one; those that are there already are kept.
 */
export async function downloadRepoFiles(
	params: HubAccess & {
		readonly repo: string;
		readonly kind?: RepoKind;
		readonly revision: string;
		readonly files: readonly RepoFile[];
		readonly directory: string;
		readonly place?: (path: string) => string;
		readonly signal?: AbortSignal;
	},
): Promise<void> {
	const waiting = [...params.files];
	await Promise.all(
		Array.from({ length: Math.min(PARALLEL_DOWNLOADS, waiting.length) }, async () => {
			for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
				params.signal?.throwIfAborted();
				try {
					await download(params, file);
				} catch (error) {
					waiting.length = 0;
					throw error;
				}
			}
		}),
	);
}

async function download(params: Parameters<typeof downloadRepoFiles>[0], file: RepoFile): Promise<void> {
	const { repo, kind = "model", revision, directory, place = (path) => path, signal, files: _, ...access } = params;
	const target = join(directory, safePath(place(file.path)));
	if (await isRepoFile(target, file)) return;
	await mkdir(dirname(target), { recursive: true });
	const partial = `${target}.part`;
	try {
		const blob = await downloadFile({
			...access,
			repo: { type: kind, name: repo },
			path: file.path.split("/").map(encodeURIComponent).join("/"),
			revision,
			// Plain transfers are served for every file and are what our hash check and time limits watch.
			xet: false,
		});
		if (blob === null) throw new RetryableError(`${file.path} is no longer in ${repo}.`);
		await pipeline(
			Readable.fromWeb(blob.stream() as NodeReadableStream<Uint8Array>),
			stopAfter(file.size, file.path),
			createWriteStream(partial),
			{ ...(signal === undefined ? {} : { signal }) },
		);
		if (!(await isRepoFile(partial, file))) {
			throw new RetryableError(`${file.path} of ${repo} arrived with another content than the Hub lists.`);
		}
		await rename(partial, target);
	} catch (error) {
		await rm(partial, { force: true });
		throw error;
	}
}

function stopAfter(limit: number, path: string): Transform {
	let received = 0;
	return new Transform({
		transform(chunk: Uint8Array, _encoding, done) {
			received += chunk.byteLength;
			if (received > limit) done(new RetryableError(`${path} is longer than the Hub lists.`));
			else done(null, chunk);
		},
	});
}

function safePath(path: string): string {
	const bad = /[\u0000-\u001f\\:]/.test(path) || path.split("/").some((part) => ["", ".", ".."].includes(part));
	if (bad) {
		throw new PermanentError({
			code: "unsafe-path",
			message: "The repo holds a file with an unsafe name.",
			remedy: "The owner renames the file.",
		});
	}
	return path;
}
