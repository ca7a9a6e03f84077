import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Client } from "pg";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";

/** One kind of database that tests run against, empty and their own. */
export type TestDatabases = {
	readonly name: "PGlite" | "PostgreSQL";
	/** For a program that is started as a child: its environment and data directory. */
	readonly environment: Readonly<Record<string, string>>;
	readonly databaseUrl: string | null;
	readonly dataDirectory: string;
	open(): Promise<Database>;
};

async function answers(url: string): Promise<boolean> {
	const client = new Client({ connectionString: url, connectionTimeoutMillis: 2000 });
	try {
		await client.connect();
		await client.end();
		return true;
	} catch {
		return false;
	}
}

function serverBinaries(): string | null {
	const versions = existsSync("/usr/lib/postgresql") ? readdirSync("/usr/lib/postgresql") : [];
	const folders = [
		...(process.env["PATH"] ?? "").split(":"),
		...versions.map((version) => `/usr/lib/postgresql/${version}/bin`),
	];
	return folders.find((folder) => existsSync(join(folder, "initdb")) && existsSync(join(folder, "postgres"))) ?? null;
}

async function freePort(): Promise<number> {
	const server = createServer().listen(0, "127.0.0.1");
	await new Promise((resolve) => server.once("listening", resolve));
	const address = server.address();
	server.close();
	return typeof address === "object" && address !== null ? address.port : 0;
}

/** PostgreSQL refuses to run as root; there it gets its package's account, or nobody's. `null`: there is neither. */
function serverAccount(): { readonly uid?: number; readonly gid?: number } | null {
	if (process.getuid?.() !== 0) return {};
	const accounts = readFileSync("/etc/passwd", "utf8")
		.split("\n")
		.map((line) => line.split(":"));
	const found = ["postgres", "nobody"].flatMap((name) => accounts.filter((fields) => fields[0] === name)).at(0);
	return found === undefined ? null : { uid: Number(found[2]), gid: Number(found[3]) };
}

/** A server of the tests' own, where binaries are found; `null` where there are none, or none that can be run. */
async function startOwnServer(): Promise<string | null> {
	const binaries = serverBinaries();
	const account = serverAccount();
	if (binaries === null || account === null) return null;
	const folder = mkdtempSync(join(tmpdir(), "yaqa-postgres-"));
	if (account.uid !== undefined && account.gid !== undefined) chownSync(folder, account.uid, account.gid);
	const made = spawnSync(join(binaries, "initdb"), ["-D", folder, "-U", "postgres", "-A", "trust", "--no-sync"], {
		cwd: folder,
		...account,
	});
	if (made.status !== 0) {
		rmSync(folder, { recursive: true, force: true });
		return null;
	}
	const port = await freePort();
	const server = spawn(
		join(binaries, "postgres"),
		["-D", folder, "-p", String(port), "-h", "127.0.0.1", "-k", folder],
		{ stdio: "ignore", cwd: folder, ...account },
	);
	after(() => {
		server.kill("SIGINT");
		rmSync(folder, { recursive: true, force: true });
	});
	const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
	for (let attempt = 0; attempt < 50; attempt++) {
		if (await answers(url)) return url;
		await new Promise((resolve) => setTimeout(resolve, 100));
	}
	return null;
}

async function findServer(): Promise<string | null> {
	const configured = process.env["DATABASE_URL"];
	if (configured !== undefined && configured !== "") return configured;
	for (const url of ["postgres://postgres@127.0.0.1:5432/postgres", "postgres://root@127.0.0.1:5432/test"]) {
		if (await answers(url)) return url;
	}
	return await startOwnServer();
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
