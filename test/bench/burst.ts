import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock } from "../../src/clock.ts";
import type { Database } from "../../src/db/database.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";
import { runBurst } from "../support/burst-run.ts";
import { createTemporaryDatabase, findPostgres } from "../support/temporary-database.ts";

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
	const { url, drop } = await createTemporaryDatabase(server);
	leftovers.push(drop);
	const dataDirectory = mkdtempSync(join(tmpdir(), "yaqa-burst-data-"));
	leftovers.push(() => rmSync(dataDirectory, { recursive: true, force: true }));
	return await openDatabase({ dataDirectory, databaseUrl: url, poolSize: 10, clock: systemClock, log: silentLog });
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
		const server = await findPostgres();
		if (server === null) process.stderr.write("skipped: no PostgreSQL\n");
		else report("PostgreSQL", await runBurst(() => openServer(server), deliveries));
	}
} finally {
	for (const remove of leftovers.toReversed()) await remove();
}
