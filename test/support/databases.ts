import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Client } from "pg";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";
import { answers, startOwnPostgres } from "./own-postgres.ts";

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
	const configured = process.env["DATABASE_URL"];
	if (configured !== undefined && configured !== "") return configured;
	for (const url of ["postgres://postgres@127.0.0.1:5432/postgres", "postgres://root@127.0.0.1:5432/test"]) {
		if (await answers(url)) return url;
	}
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
		const name = `yaqa_test_${randomBytes(6).toString("hex")}`;
		const admin = new Client({ connectionString: server });
		await admin.connect();
		await admin.query(`create database ${name}`);
		await admin.end();
		leftovers.push(async () => {
			const client = new Client({ connectionString: server });
			await client.connect();
			await client.query(`drop database if exists ${name} with (force)`);
			await client.end();
		});
		const url = new URL(server);
		url.pathname = `/${name}`;
		const dataDirectory = folder();
		return {
			name: "PostgreSQL",
			environment: { DATABASE_URL: url.href },
			databaseUrl: url.href,
			dataDirectory,
			open: opener(dataDirectory, url.href),
		};
	}, "PostgreSQL");
}
