import { Kysely, PostgresDialect, sql } from "kysely";
import { Pool } from "pg";
import type { Log } from "../log.ts";
import type { Database } from "./database.ts";
import type { Schema } from "./schema.ts";
import { SturdyClient } from "./sturdy-client.ts";

/** PostgreSQL at `url`, for one replica or several. */
export async function openPostgres(options: {
	readonly url: string;
	readonly poolSize: number;
	readonly log: Log;
}): Promise<Database> {
	const pool = new Pool({
		Client: SturdyClient,
		connectionString: options.url,
		max: options.poolSize,
		connectionTimeoutMillis: 10_000,
		statement_timeout: 60_000,
		application_name: "yaqa-bot",
	});
	// The pool passes on what happens to its idle connections; without a listener here too that ends the process.
	pool.on("error", (error) => options.log.warn("An idle database connection broke", { error }));
	const handle = new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });
	try {
		await sql`select 1`.execute(handle);
	} catch (error) {
		await handle.destroy();
		throw error;
	}
	let closed = false;
	return {
		kind: "postgres",
		handle,
		transaction: (work) => handle.transaction().execute(work),
		queueOptions: {
			// pg-boss hands its options on to a pool of its own.
			...{ Client: SturdyClient },
			connectionString: options.url,
			max: 5,
			application_name: "yaqa-bot-queue",
		},
		async check() {
			await sql`select 1`.execute(handle);
		},
		async close() {
			if (closed) return;
			closed = true;
			await handle.destroy();
		},
	};
}
