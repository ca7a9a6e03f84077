import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeFileAtomically } from "./atomic-file.ts";
import { gitBlobOid } from "./git-objects.ts";
import { HubError } from "./hub-error.ts";

/** Content-addressed files: `git/` holds regular blobs by git sha1, `sha256/` holds LFS objects. */
export type BlobStore = {
	readonly temporaryDirectory: string;
	regularPath(oid: string): string;
	lfsPath(oid: string): string;
	hasLfs(oid: string): Promise<boolean>;
	lfsSize(oid: string): Promise<number | null>;
	putRegular(content: Uint8Array): Promise<string>;
	readRegular(oid: string): Promise<Buffer>;
	/**
	 * Streams `chunks` to disk while hashing; at no time is more than a chunk in memory.
	 * Keeps the object only when size and sha256 are those expected (`null`: whatever they are).
	 */
	receiveLfs(
		chunks: AsyncIterable<Uint8Array>,
		expected: { oid: string | null; size: number | null },
	): Promise<{ oid: string; size: number }>;
};

function fanOut(root: string, oid: string): string {
	return join(root, oid.slice(0, 2), oid);
}

export async function openBlobStore(directory: string): Promise<BlobStore> {
	const git = join(directory, "blobs", "git");
	const lfs = join(directory, "blobs", "sha256");
	const temporaryDirectory = join(directory, "tmp");
	// what an earlier process was in the middle of receiving
	await rm(temporaryDirectory, { recursive: true, force: true });
	for (const path of [git, lfs, temporaryDirectory]) await mkdir(path, { recursive: true });

	async function sizeOf(path: string): Promise<number | null> {
		try {
			return (await stat(path)).size;
		} catch {
			return null;
		}
	}

	const store: BlobStore = {
		temporaryDirectory,
		regularPath: (oid) => fanOut(git, oid),
		lfsPath: (oid) => fanOut(lfs, oid),
		hasLfs: async (oid) => (await sizeOf(fanOut(lfs, oid))) !== null,
		lfsSize: (oid) => sizeOf(fanOut(lfs, oid)),
		async putRegular(content) {
			const oid = gitBlobOid(content);
			const path = fanOut(git, oid);
			if ((await sizeOf(path)) === null) {
				await mkdir(dirname(path), { recursive: true });
				await writeFileAtomically(path, content);
			}
			return oid;
		},
		readRegular: (oid) => readFile(fanOut(git, oid)),
		async receiveLfs(chunks, expected) {
			const temporary = join(temporaryDirectory, randomUUID());
			const hash = createHash("sha256");
			let size = 0;
			try {
				const handle = await open(temporary, "wx", 0o600);
				try {
					for await (const chunk of chunks) {
						size += chunk.byteLength;
						if (expected.size !== null && size > expected.size)
							throw new HubError(413, `The object is larger than the announced ${expected.size} bytes.`);
						hash.update(chunk);
						await handle.write(chunk);
					}
					await handle.sync();
				} finally {
					await handle.close();
				}
				const oid = hash.digest("hex");
				if (expected.size !== null && size !== expected.size)
					throw new HubError(400, `Received ${size} bytes where ${expected.size} were announced.`);
				if (expected.oid !== null && oid !== expected.oid)
					throw new HubError(400, `The content hashes to sha256 ${oid}, not to the announced ${expected.oid}.`);
				const path = fanOut(lfs, oid);
				await mkdir(dirname(path), { recursive: true });
				await rename(temporary, path);
				return { oid, size };
			} finally {
				await rm(temporary, { force: true });
			}
		},
	};
	return store;
}

/** The bytes of several files, one after the other. */
export async function* concatenated(paths: readonly string[]): AsyncGenerator<Uint8Array> {
	for (const path of paths) yield* createReadStream(path, { highWaterMark: 1 << 20 });
}
