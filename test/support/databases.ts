import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";
import { startOwnPostgres } from "./own-postgres.ts";
import { createTemporaryDatabase, findPostgres } from "./temporary-database.ts";

/** One kind of database that tests run against, empty and their own. */
export type TestDatabases = {
	readonly name: "PGlite" | "PostgreSQL";
	/** For a program that is started as a child: its environment and data directory. */
	readonly environment: Readonly<Record<string, string>>;
	readonly databaseUrl: string | null;
	readonly dataDirectory: string;
	open(): Promise<Database>;
};

async function findServer(): Promise<string | null> {
	const found = await findPostgres();
	if (found !== null) return found;
	const own = await startOwnPostgres();
	if (own === null) return null;
	after(() => own.stop());
	return own.url;
}

/** Runs the tests that `define` makes on the embedded database and, where one is at hand, on PostgreSQL. */
export async function onEveryDatabase(define: (databases: () => Promise<TestDatabases>, name: string) => void) {
	const leftovers: (() => Promise<void> | void)[] = [];
	after(async () => {
		for (const remove of leftovers.toReversed()) await remove();
	});
	function folder(): string {
		const path = mkdtempSync(join(tmpdir(), "yaqa-data-"));
		leftovers.push(() => rmSync(path, { recursive: true, force: true }));
		return path;
	}
	function opener(dataDirectory: string, databaseUrl: string | null): () => Promise<Database> {
		return async () => {
			const database = await openDatabase({
				dataDirectory,
				databaseUrl,
				poolSize: 6,
				clock: systemClock,
				log: silentLog,
			});
			// A test that fails before its end would else leave connections, and with them its whole file, waiting for ever.
			leftovers.push(() => database.close());
			return database;
		};
	}

	define(async () => {
		const dataDirectory = folder();
		return {
			name: "PGlite",
			environment: {},
			databaseUrl: null,
			dataDirectory,
			open: opener(dataDirectory, null),
		};
	}, "PGlite");

	const server = await findServer();
	if (server === null) {
		test("PostgreSQL", { skip: "skipped: no PostgreSQL" }, () => {});
		return;
	}
	define(async () => {
		const { url, drop } = await createTemporaryDatabase(server);
		leftovers.push(drop);
		const dataDirectory = folder();
		return {
			name: "PostgreSQL",
			environment: { DATABASE_URL: url },
			databaseUrl: url,
			dataDirectory,
			open: opener(dataDirectory, url),
		};
	}, "PostgreSQL");
}
