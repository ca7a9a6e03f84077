import { lstat, readdir, rename, rm, utimes } from "node:fs/promises";
import { join } from "node:path";
import { createKeyedLock } from "../../keyed-lock.ts";

/**
 * Folders of the data directory that jobs share and that are deleted when nobody needs them. One process has the data
 * directory, so a lock within it keeps who fills or looks up a folder apart from who deletes it.
 */
const alone = createKeyedLock();

const DOOMED = ".doomed";

/** Works with a folder that is not deleted meanwhile; counts as a use of it. */
export async function useFolder<T>(path: string, work: () => Promise<T>): Promise<T> {
	return await alone(path, async () => {
		const result = await work();
		const now = new Date();
		await utimes(path, now, now).catch(() => undefined);
		return result;
	});
}

/** Deletes a folder or file unless `isNeeded` says otherwise at that moment; whether it did. */
export async function removeUnlessNeeded(path: string, isNeeded: () => Promise<boolean>): Promise<boolean> {
	return await alone(path, async () => {
		if (await isNeeded()) return false;
		// Whole or not at all: whoever looks while it is emptied must not find half of it.
		const doomed = path.endsWith(DOOMED) ? path : `${path}${DOOMED}`;
		try {
			if (doomed !== path) await rename(path, doomed);
		} catch (error) {
			if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
			throw error;
		}
		await rm(doomed, { recursive: true, force: true });
		return true;
	});
}

export type KeptEntry = {
	readonly name: string;
	readonly path: string;
	readonly bytes: number;
	/** When it was last written to or used. */
	readonly usedAt: Date;
	/** A deletion of it was begun. */
	readonly isDoomed: boolean;
};

/** Bytes on disk; what vanishes meanwhile counts for nothing. */
async function bytesOf(path: string): Promise<number> {
	const names = await readdir(path, { recursive: true }).catch(() => []);
	let bytes = 0;
	for (const name of ["", ...names]) {
		const found = await lstat(join(path, name)).catch(() => null);
		if (found !== null) bytes += found.blocks * 512;
	}
	return bytes;
}

/** What lies in a folder, least recently used first. */
export async function listKept(folder: string): Promise<readonly KeptEntry[]> {
	const names = await readdir(folder).catch(() => []);
	const entries: KeptEntry[] = [];
	for (const name of names) {
		const path = join(folder, name);
		const found = await lstat(path).catch(() => null);
		if (found === null) continue;
		entries.push({ name, path, bytes: await bytesOf(path), usedAt: found.mtime, isDoomed: name.endsWith(DOOMED) });
	}
	return entries.toSorted((one, other) => one.usedAt.getTime() - other.usedAt.getTime());
}
