import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Client } from "pg";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";
import { runBurst } from "../support/burst-run.ts";

/**
 * `npm run bench:burst -- [--json] [--deliveries N] [--database PGlite|PostgreSQL]`: a burst of webhook deliveries with
 * 50 % loss, 30 % duplicates and disorder against two replicas. One JSON line for each database, on stdout.
 */
const { values } = parseArgs({
	options: {
		json: { type: "boolean", default: false },
		deliveries: { type: "string", default: "1000" },
		database: { type: "string" },
	},
});
const deliveries = Number(values.deliveries);
if (!Number.isInteger(deliveries) || deliveries < 10) throw new Error("--deliveries takes a number from 10 on.");

const leftovers: (() => Promise<void> | void)[] = [];

function openEmbedded(): Promise<Database> {
	const dataDirectory = mkdtempSync(join(tmpdir(), "yaqa-burst-data-"));
	leftovers.push(() => rmSync(dataDirectory, { recursive: true, force: true }));
	return openDatabase({ dataDirectory, databaseUrl: null, poolSize: 10, clock: systemClock, log: silentLog });
}

async function openServer(server: string): Promise<Database> {
	const name = `yaqa_burst_${randomBytes(6).toString("hex")}`;
	async function administer(statement: string): Promise<void> {
		const client = new Client({ connectionString: server });
		await client.connect();
		await client.query(statement);
		await client.end();
	}
	await administer(`create database ${name}`);
	leftovers.push(() => administer(`drop database if exists ${name} with (force)`));
	const url = new URL(server);
	url.pathname = `/${name}`;
	const dataDirectory = mkdtempSync(join(tmpdir(), "yaqa-burst-data-"));
	leftovers.push(() => rmSync(dataDirectory, { recursive: true, force: true }));
	return await openDatabase({ dataDirectory, databaseUrl: url.href, poolSize: 10, clock: systemClock, log: silentLog });
}

async function findServer(): Promise<string | null> {
	const configured = process.env["DATABASE_URL"];
	const candidates = [configured, "postgres://postgres@127.0.0.1:5432/postgres", "postgres://root@127.0.0.1:5432/test"];
	for (const url of candidates) {
		if (url === undefined || url === "") continue;
		const client = new Client({ connectionString: url, connectionTimeoutMillis: 2000 });
		try {
			await client.connect();
			await client.end();
			return url;
		} catch {
			// The next one, then.
		}
	}
	return null;
}

function report(database: string, found: Awaited<ReturnType<typeof runBurst>>): void {
	if (values.json) process.stdout.write(`${JSON.stringify({ database, ...found })}\n`);
	else {
		const { p50, p99 } = found.acknowledgementMilliseconds;
		process.stdout.write(
			`${database}: ${found.deliveries} deliveries, ${found.lost} lost, ${found.duplicateJobs} duplicate jobs, acknowledged in ${p50} ms (p50), ${p99} ms (p99)\n`,
		);
	}
	if (found.lost > 0 || found.duplicateJobs > 0) process.exitCode = 1;
}

try {
	if (values.database !== "PostgreSQL") report("PGlite", await runBurst(openEmbedded, deliveries));
	if (values.database !== "PGlite") {
		const server = await findServer();
		if (server === null) process.stderr.write("skipped: no PostgreSQL\n");
		else report("PostgreSQL", await runBurst(() => openServer(server), deliveries));
	}
} finally {
	for (const remove of leftovers.toReversed()) await remove();
}
