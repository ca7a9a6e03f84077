import { sql } from "kysely";
import { z } from "zod";
import type { Database, Handle } from "./database.ts";
import { MIGRATIONS, migrateIn } from "./migrate.ts";

/**
 * The database as lines of text, the same for either kind: values are what PostgreSQL itself writes and reads, so that
 * they come back to the last digit. The queue's own tables are left out: its messages are hints, sent anew for what the
 * rows say is due.
 */

const FORMAT = "yaqa-bot database";
const FORMAT_VERSION = 1;
const BATCH = 500;
/** What a database notes of itself: its schema, and the number of a transaction, which means nothing in another one. */
const BOOKKEEPING = ["schema_migrations", "catalogue_version"];

const Header = z.strictObject({
	format: z.literal(FORMAT),
	version: z.literal(FORMAT_VERSION),
	/** Of the newest migration. */
	schema: z.int().min(1),
	at: z.iso.datetime(),
});
const Row = z.strictObject({ table: z.string(), row: z.record(z.string(), z.string().nullable()) });
const End = z.strictObject({ end: z.record(z.string(), z.int().min(0)) });
type Row = z.infer<typeof Row>;

export type RowCounts = Readonly<Record<string, number>>;

/** Why lines are not put into a database; nothing of them is there then. */
export class RestoreError extends Error {
	override readonly name = "RestoreError";
}

type Column = { readonly name: string; readonly type: string };

/** Every table's columns, but for those that the database computes. Tables that others refer to come first. */
async function tablesOf(handle: Handle): Promise<ReadonlyMap<string, readonly Column[]>> {
	const { rows } = await sql<{ table: string; name: string; type: string }>`
		select class.relname as table, attribute.attname as name,
			format_type(attribute.atttypid, attribute.atttypmod) as type
		from pg_attribute as attribute
		join pg_class as class on class.oid = attribute.attrelid
		where class.relnamespace = current_schema()::regnamespace and class.relkind = 'r'
			and attribute.attnum > 0 and not attribute.attisdropped and attribute.attgenerated = ''
			and class.relname <> all(${BOOKKEEPING})
		order by class.relname <> 'jobs', class.relname, attribute.attnum`.execute(handle);
	const tables = new Map<string, Column[]>();
	for (const { table, name, type } of rows) {
		const columns = tables.get(table) ?? [];
		columns.push({ name, type });
		tables.set(table, columns);
	}
	return tables;
}

async function schemaVersion(handle: Handle): Promise<number> {
	const { rows } = await sql<{ newest: number | null }>`select max(version) as newest from schema_migrations`.execute(
		handle,
	);
	return rows[0]?.newest ?? 0;
}

/** Times with their offset, numbers with every digit. */
async function usePlainText(tx: Handle): Promise<void> {
	await sql`set local timezone = 'UTC'`.execute(tx);
	await sql`set local datestyle = 'ISO'`.execute(tx);
	await sql`set local extra_float_digits = 1`.execute(tx);
}

/** Writes everything as of one moment, a line at a time; how many rows of each table there are. */
export async function dumpDatabase(
	database: Database,
	options: { readonly now: Date; readonly write: (line: string) => Promise<void> },
): Promise<RowCounts> {
	const { now, write } = options;
	return await database.transaction(async (tx) => {
		await sql`set transaction isolation level repeatable read, read only`.execute(tx);
		await usePlainText(tx);
		const header: z.infer<typeof Header> = {
			format: FORMAT,
			version: FORMAT_VERSION,
			schema: await schemaVersion(tx),
			at: now.toISOString(),
		};
		await write(JSON.stringify(header));
		const counts: Record<string, number> = {};
		for (const [table, columns] of await tablesOf(tx)) {
			const texts = sql.join(columns.map(({ name }) => sql`${sql.ref(name)}::text as ${sql.id(name)}`));
			await sql`declare dump_rows no scroll cursor for select ${texts} from ${sql.table(table)}`.execute(tx);
			counts[table] = 0;
			for (;;) {
				const { rows } = await sql<Row["row"]>`fetch ${sql.lit(BATCH)} from dump_rows`.execute(tx);
				for (const row of rows) await write(JSON.stringify({ table, row } satisfies Row));
				counts[table] += rows.length;
				if (rows.length < BATCH) break;
			}
			await sql`close dump_rows`.execute(tx);
		}
		await write(JSON.stringify({ end: counts } satisfies z.infer<typeof End>));
		return counts;
	});
}

/** What a bot leaves that has done something; one that only started has written other rows. */
const WORK_TABLES = ["deliveries", "requests", "jobs", "variants", "published_repos", "known_heads"];

export async function isUnused(tx: Handle): Promise<boolean> {
	const tables = await tablesOf(tx);
	for (const table of WORK_TABLES.filter((name) => tables.has(name))) {
		const { rows } = await sql`select 1 from ${sql.table(table)} limit 1`.execute(tx);
		if (rows.length > 0) return false;
	}
	return true;
}

function parsed<T>(schema: z.ZodType<T>, line: string, what: string): T {
	let json: unknown;
	try {
		json = JSON.parse(line);
	} catch {
		throw new RestoreError(`${what} is not JSON.`);
	}
	const result = schema.safeParse(json);
	if (!result.success) throw new RestoreError(`${what} is not one of a backup of this program.`);
	return result.data;
}

/** Columns that refer to other rows of their own table. */
async function ownReferences(tx: Handle, table: string): Promise<readonly string[]> {
	const { rows } = await sql<{ name: string }>`select attribute.attname as name from pg_constraint
		join pg_attribute as attribute on attribute.attrelid = conrelid and attribute.attnum = conkey[1]
		where contype = 'f' and conrelid = confrelid and conrelid = ${table}::regclass`.execute(tx);
	return rows.map((row) => row.name);
}

async function insertRows(
	tx: Handle,
	table: string,
	columns: readonly Column[],
	rows: readonly Row["row"][],
): Promise<void> {
	if (rows.length === 0) return;
	const values = sql.join(columns.map(({ name, type }) => sql`(line.value->>${sql.lit(name)})::${sql.raw(type)}`));
	await sql`insert into ${sql.table(table)} (${sql.join(columns.map(({ name }) => sql.id(name)))})
		select ${values} from jsonb_array_elements(${JSON.stringify(rows)}::text::jsonb) as line`.execute(tx);
}

/** A row may come before the one that it refers to: such columns are filled when all rows are there. */
async function fillReferences(tx: Handle, references: readonly Reference[]): Promise<void> {
	for (const { table, id, column, value } of references) {
		await sql`update ${sql.table(table)} set ${sql.id(column)} = ${value}::uuid where id = ${id}::uuid`.execute(tx);
	}
}

type Reference = { readonly table: string; readonly id: string; readonly column: string; readonly value: string };

async function restoreRows(tx: Handle, lines: AsyncIterator<string>): Promise<RowCounts> {
	const tables = await tablesOf(tx);
	const counts: Record<string, number> = Object.fromEntries([...tables.keys()].map((table) => [table, 0]));
	let pending: { table: string; rows: Row["row"][] } = { table: "", rows: [] };
	const references: Reference[] = [];
	const selfColumns = new Map<string, readonly string[]>();
	for (const table of tables.keys()) selfColumns.set(table, await ownReferences(tx, table));
	const flush = async () => {
		await insertRows(tx, pending.table, tables.get(pending.table) ?? [], pending.rows);
		pending.rows = [];
	};
	for (;;) {
		const { value: line, done } = await lines.next();
		if (done === true) throw new RestoreError("The backup is cut off: its last line is missing.");
		if (line.startsWith('{"end"')) {
			await flush();
			await fillReferences(tx, references);
			const { end } = parsed(End, line, "The last line");
			const wrong = Object.entries(end).find(([table, count]) => counts[table] !== count);
			if (wrong !== undefined) throw new RestoreError(`The backup lacks rows of ${wrong[0]}.`);
			return counts;
		}
		const { table, row } = parsed(Row, line, "A line");
		const columns = tables.get(table);
		if (columns === undefined || columns.some(({ name }) => !Object.hasOwn(row, name))) {
			throw new RestoreError(`The backup has a table ${table.slice(0, 60)} that its own version does not have so.`);
		}
		if (table !== pending.table || pending.rows.length >= BATCH) await flush();
		pending = { table, rows: pending.rows };
		for (const column of selfColumns.get(table) ?? []) {
			const value = row[column] ?? null;
			if (value === null) continue;
			references.push({ table, id: row["id"] ?? "", column, value });
			row[column] = null;
		}
		pending.rows.push(row);
		counts[table] = (counts[table] ?? 0) + 1;
	}
}

/**
 * Puts a dump into a database that has no rows of ours, all or nothing. One of an earlier version is brought up to date
 * as its own program's database would be.
 */
export async function restoreDatabase(
	database: Database,
	options: { readonly now: Date; readonly lines: AsyncIterable<string> },
): Promise<RowCounts> {
	const { now } = options;
	const lines = options.lines[Symbol.asyncIterator]();
	try {
		return await restoreFrom(database, now, lines);
	} finally {
		await lines.return?.();
	}
}

async function restoreFrom(database: Database, now: Date, lines: AsyncIterator<string>): Promise<RowCounts> {
	const first = await lines.next();
	if (first.done === true) throw new RestoreError("The backup is empty.");
	const header = parsed(Header, first.value, "The first line");
	const newest = Math.max(...MIGRATIONS.map(({ version }) => version));
	if (header.schema > newest) {
		throw new RestoreError(`The backup is of database version ${header.schema}, this program knows up to ${newest}.`);
	}
	return await database.transaction(async (tx) => {
		await usePlainText(tx);
		if (!(await isUnused(tx)))
			throw new RestoreError("The database is in use already; a backup goes into an empty one.");
		for (const table of [...(await tablesOf(tx)).keys(), ...BOOKKEEPING]) {
			await sql`drop table if exists ${sql.table(table)} cascade`.execute(tx);
		}
		await migrateIn(
			tx,
			now,
			MIGRATIONS.filter(({ version }) => version <= header.schema),
		);
		const counts = await restoreRows(tx, lines);
		await migrateIn(tx, now);
		return counts;
	});
}
