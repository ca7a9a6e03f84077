import { type Kysely, sql } from "kysely";
import { firstTables } from "./migrations/0001-first-tables.ts";
import { leases } from "./migrations/0002-leases.ts";
import { admission } from "./migrations/0003-admission.ts";
import { runHints } from "./migrations/0004-run-hints.ts";
import { storedSketches } from "./migrations/0005-stored-sketches.ts";
import { jobFlavours } from "./migrations/0006-job-flavours.ts";
import { carriedVariants } from "./migrations/0007-carried-variants.ts";
import { pushedEvents } from "./migrations/0008-pushed-events.ts";
import { jobRemarks } from "./migrations/0009-job-remarks.ts";
import { wordsOfTheField } from "./migrations/0010-words-of-the-field.ts";
import { sourceVisibility } from "./migrations/0011-source-visibility.ts";
import { strangerAnswers } from "./migrations/0012-stranger-answers.ts";
import { catalogueModels } from "./migrations/0013-catalogue-models.ts";
import { plannedSeconds } from "./migrations/0014-planned-seconds.ts";
import { siteSessions } from "./migrations/0015-site-sessions.ts";
import { catalogueSearch } from "./migrations/0016-catalogue-search.ts";
import { catalogueVersion } from "./migrations/0017-catalogue-version.ts";
import type { Migration } from "./migrations/migration.ts";
import type { Schema } from "./schema.ts";

export const MIGRATIONS: readonly Migration[] = [
	firstTables,
	leases,
	admission,
	runHints,
	storedSketches,
	jobFlavours,
	carriedVariants,
	pushedEvents,
	jobRemarks,
	wordsOfTheField,
	sourceVisibility,
	strangerAnswers,
	catalogueModels,
	plannedSeconds,
	siteSessions,
	catalogueSearch,
	catalogueVersion,
];

/** Any number that nobody else in the database uses: the migrations' advisory lock. */
const MIGRATION_LOCK = 7_919_040_521;

/**
 * Brings the tables up to date; returns the versions that were applied. Replicas that start together wait for each other
 * on the advisory lock (on PGlite a transaction is alone anyway). A database that is newer than this program is refused,
 * since an older replica would write rows the newer one misreads.
 */
export async function migrate(
	handle: Kysely<Schema>,
	now: Date,
	migrations: readonly Migration[] = MIGRATIONS,
): Promise<readonly number[]> {
	return await handle.transaction().execute((tx) => migrateIn(tx, now, migrations));
}

/** As `migrate`, within a transaction that the caller has begun. */
export async function migrateIn(
	tx: Kysely<Schema>,
	now: Date,
	migrations: readonly Migration[] = MIGRATIONS,
): Promise<readonly number[]> {
	await sql`select pg_advisory_xact_lock(${sql.lit(MIGRATION_LOCK)})`.execute(tx);
	await sql`create table if not exists schema_migrations (
		version integer primary key, name text not null, applied_at timestamptz not null
	)`.execute(tx);
	const { rows } = await sql<{ version: number }>`select version from schema_migrations`.execute(tx);
	const applied = new Set(rows.map((row) => row.version));
	const newest = Math.max(0, ...migrations.map((migration) => migration.version));
	const unknown = [...applied].filter((version) => version > newest);
	if (unknown.length > 0) {
		throw new Error(
			`The database has migration ${Math.max(...unknown)}, this yaqa-bot knows up to ${newest}. Start the newer version.`,
		);
	}
	const fresh: number[] = [];
	for (const migration of migrations.toSorted((one, other) => one.version - other.version)) {
		if (applied.has(migration.version)) continue;
		// A table with triggers that wait for the transaction's end cannot be altered.
		await sql`set constraints all immediate`.execute(tx);
		for (const statement of migration.statements) await sql.raw(statement).execute(tx);
		await migration.fill?.(tx);
		await sql`insert into schema_migrations (version, name, applied_at)
			values (${migration.version}, ${migration.name}, ${now})`.execute(tx);
		fresh.push(migration.version);
	}
	await sql`set constraints all deferred`.execute(tx);
	return fresh;
}
