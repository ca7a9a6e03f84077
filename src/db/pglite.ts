import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { pg_trgm } from "@electric-sql/pglite/contrib/pg_trgm";
import { Kysely, sql } from "kysely";
import { fromPglite } from "pg-boss";
import type { Database } from "./database.ts";
import { type DirectoryLock, takeDirectoryLock } from "./directory-lock.ts";
import { createTransactionGuard, pgliteDialect } from "./pglite-dialect.ts";
import type { Schema } from "./schema.ts";

/**
 * The embedded database in `dataDirectory/database`, locked against a second process; in memory for `null`.
 * PGlite runs with fsync off: it outlives SIGKILL, not a power cut.
 */
export async function openPglite(options: { readonly dataDirectory: string | null }): Promise<Database> {
	const { dataDirectory } = options;
	let lock: DirectoryLock | null = null;
	if (dataDirectory !== null) {
		mkdirSync(dataDirectory, { recursive: true });
		lock = takeDirectoryLock(join(dataDirectory, "database.lock"));
	}
	try {
		const pglite = await PGlite.create({
			...(dataDirectory === null ? {} : { dataDir: join(dataDirectory, "database") }),
			extensions: { pg_trgm },
		});
		const guard = createTransactionGuard();
		const handle = new Kysely<Schema>({ dialect: pgliteDialect(pglite, guard) });
		const adapter = fromPglite(pglite);
		let closed = false;
		return {
			kind: "embedded",
			handle,
			async transaction(work) {
				guard.assertOutside("A transaction");
				return await handle.transaction().execute((tx) => guard.inside(() => work(tx)));
			},
			queueOptions: {
				backend: "pglite",
				db: {
					...adapter,
					executeSql(text, values) {
						guard.assertOutside("A queue statement");
						return adapter.executeSql(text, values);
					},
				},
			},
			async check() {
				await sql`select 1`.execute(handle);
			},
			async close() {
				if (closed) return;
				closed = true;
				try {
					await pglite.close();
				} finally {
					lock?.release();
				}
			},
		};
	} catch (error) {
		lock?.release();
		throw error;
	}
}
