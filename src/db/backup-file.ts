import { createReadStream, createWriteStream } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { finished } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";
import type { Database } from "./database.ts";
import { dumpDatabase, RestoreError, type RowCounts, restoreDatabase } from "./dump.ts";

/** Writes the whole database to a compressed file, which appears whole or not at all. */
export async function backUp(database: Database, path: string, now: Date): Promise<RowCounts> {
	const draft = `${path}.${process.pid}.draft`;
	// It holds the key that progress is signed with, and what private repos are called.
	const file = createWriteStream(draft, { mode: 0o600, flags: "wx", flush: true });
	const gzip = createGzip();
	gzip.pipe(file);
	const written = finished(file);
	// Whoever writes is told; without this the process would end of it first.
	written.catch(() => undefined);
	file.on("error", (error) => gzip.destroy(error));
	const gone = new Promise<never>((_resolve, reject) => gzip.on("error", reject));
	gone.catch(() => undefined);
	try {
		const counts = await dumpDatabase(database, {
			now,
			write: async (line) => {
				if (gzip.write(`${line}\n`)) return;
				await Promise.race([new Promise((resolve) => gzip.once("drain", resolve)), gone]);
			},
		});
		gzip.end();
		await Promise.race([written, gone]);
		await rename(draft, path);
		return counts;
	} catch (error) {
		gzip.destroy();
		file.destroy();
		await rm(draft, { force: true });
		throw error;
	}
}

async function* linesOf(path: string): AsyncGenerator<string> {
	const gunzip = createGunzip();
	const file = createReadStream(path);
	file.on("error", (error) => gunzip.destroy(error));
	file.pipe(gunzip);
	try {
		// Not by `readline`: it breaks lines at U+2028 too, which JSON leaves as it is.
		let pending = "";
		for await (const text of gunzip.setEncoding("utf8")) {
			const lines = (pending + String(text)).split("\n");
			pending = lines.pop() ?? "";
			yield* lines;
		}
		if (pending !== "") yield pending;
	} catch (error) {
		const isDamaged = error instanceof Error && "code" in error && String(error.code).startsWith("Z_");
		throw isDamaged ? new RestoreError("The backup is damaged or cut off.", { cause: error }) : error;
	} finally {
		file.destroy();
	}
}

/** Puts a backup into a database that nothing was done with yet, all or nothing. */
export async function restore(database: Database, path: string, now: Date): Promise<RowCounts> {
	return await restoreDatabase(database, { now, lines: linesOf(path) });
}
