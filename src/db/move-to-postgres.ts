import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Database } from "./database.ts";
import { dumpDatabase, RestoreError, type RowCounts, restoreDatabase } from "./dump.ts";

/** Beside an embedded database whose rows live on in PostgreSQL: whoever opened it would work on what is past. */
const MARK = "database.moved";

/** Throws where the embedded database was moved to PostgreSQL. */
export function assertNotMoved(dataDirectory: string): void {
	const path = join(dataDirectory, MARK);
	if (!existsSync(path)) return;
	throw new Error(
		`This database was moved to PostgreSQL on ${readFileSync(path, "utf8").slice(0, 24)}. Set DATABASE_URL; to go back to what it was then, delete ${path}.`,
	);
}

/** Hands lines from who writes them to who reads them, a few at a time. */
function lineChannel(): {
	write(line: string): Promise<void>;
	end(error?: unknown): void;
	readonly lines: AsyncIterable<string>;
} {
	const channel = new TransformStream<string, string>(undefined, { highWaterMark: 100 });
	const writer = channel.writable.getWriter();
	return {
		async write(line) {
			await writer.ready;
			await writer.write(line);
		},
		end(error) {
			if (error === undefined) writer.close().catch(() => undefined);
			else writer.abort(error).catch(() => undefined);
		},
		lines: channel.readable,
	};
}

/**
 * Copies everything from the embedded database to an unused PostgreSQL, all or nothing, and marks the embedded one as
 * moved.
 */
export async function moveToPostgres(options: {
	readonly from: Database;
	readonly to: Database;
	readonly dataDirectory: string;
	readonly now: Date;
}): Promise<RowCounts> {
	const { from, to, dataDirectory, now } = options;
	if (from.kind !== "embedded" || to.kind !== "postgres") {
		throw new RestoreError("Rows are moved from the embedded database to a PostgreSQL.");
	}
	const channel = lineChannel();
	const writing = dumpDatabase(from, { now, write: channel.write }).then(
		() => channel.end(),
		(error: unknown) => {
			channel.end(error);
			throw error;
		},
	);
	try {
		const counts = await restoreDatabase(to, { now, lines: channel.lines });
		await writing;
		writeFileSync(join(dataDirectory, MARK), `${now.toISOString()}\n`);
		return counts;
	} catch (error) {
		channel.end(error);
		await writing.catch(() => undefined);
		throw error;
	}
}
