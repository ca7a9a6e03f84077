import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import type { Database } from "./database.ts";
import { migrate } from "./migrate.ts";
import { assertNotMoved } from "./move-to-postgres.ts";
import { openPostgres } from "./pg.ts";
import { openPglite } from "./pglite.ts";

/** Opens the configured database and brings its tables up to date. */
export async function openDatabase(options: {
	readonly dataDirectory: string;
	/** PostgreSQL's address; the embedded database when `null`. */
	readonly databaseUrl: string | null;
	readonly poolSize: number;
	readonly clock: Clock;
	readonly log: Log;
}): Promise<Database> {
	const { databaseUrl, dataDirectory, poolSize, log } = options;
	if (databaseUrl === null) assertNotMoved(dataDirectory);
	const database =
		databaseUrl === null
			? await openPglite({ dataDirectory })
			: await openPostgres({ url: databaseUrl, poolSize, log });
	try {
		const applied = await migrate(database.handle, options.clock.now());
		if (applied.length > 0) log.info("Database tables brought up to date", { migrations: applied });
		if (database.kind === "embedded") log.info("Embedded database: survives a crash of the program, not a power cut");
	} catch (error) {
		await database.close();
		throw error;
	}
	return database;
}
