import type { Kysely } from "kysely";
import type { ConstructorOptions } from "pg-boss";
import type { Schema } from "./schema.ts";

/** What every query function takes: the database itself or a transaction of it. */
export type Handle = Kysely<Schema>;

export type Database = {
	readonly kind: "embedded" | "postgres";
	readonly handle: Handle;
	/** On PGlite, a query on `handle` from inside `work` throws at once: it would wait for the transaction for ever. */
	transaction<T>(work: (tx: Handle) => Promise<T>): Promise<T>;
	/** What pg-boss is opened with on the same database. */
	readonly queueOptions: ConstructorOptions;
	/** Throws when the database does not answer. */
	check(): Promise<void>;
	close(): Promise<void>;
};
