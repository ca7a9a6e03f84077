import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock } from "../../src/clock.ts";
import { ConfigurationFile } from "../../src/config/schema.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { createLog } from "../../src/log.ts";
import { createApp } from "../../src/web/create-app.ts";
import { databaseData } from "../../src/web/database-data.ts";
import { createMetrics } from "../../src/web/metrics.ts";
import { aboutOf } from "../../src/web/views/about-page.ts";
import { keepSeed, takeKeptSeed } from "./kept-seed.ts";
import { seededThings, seedSite } from "./site-seed.ts";

/**
 * The site in a process of its own, so that its clients take nothing of its thread. Arguments: the data directory, how
 * many variants, PostgreSQL's address or nothing. It tells of itself in one line of JSON, and takes `{events: N}` by
 * IPC: so many more events of the live job, one every 50 ms; it answers with the numbers of the first and the last.
 */
const [dataDirectory = "", variants = "", databaseUrl = ""] = process.argv.slice(2);
const log = createLog({
	level: "error",
	write: (line) => void process.stderr.write(`${line}\n`),
	now: () => systemClock.now(),
});
const isEmbedded = databaseUrl === "";
const open = () =>
	openDatabase({ dataDirectory, databaseUrl: isEmbedded ? null : databaseUrl, poolSize: 8, clock: systemClock, log });
const folder = join(dataDirectory, "database");
const isKept = isEmbedded && takeKeptSeed(folder, Number(variants));
let database = await open();
if (!isKept) {
	await seedSite(database, Number(variants));
	if (isEmbedded) {
		await database.close();
		keepSeed(folder, Number(variants));
		database = await open();
	}
}
const { liveJob, variant } = await seededThings(database);
const { app } = createApp({
	data: databaseData({ database, clock: systemClock, audience: "everybody" }),
	storeDelivery: () => Promise.reject(new Error("This site takes no deliveries.")),
	webhookSecrets: [],
	gitHubWebhookSecrets: [],
	progress: { isAllowed: () => false, store: async () => false },
	maxBodyBytes: 4096,
	hubUrl: "http://hub.example",
	botName: "yaqa-bot",
	about: aboutOf(ConfigurationFile.parse({}), false),
	version: "0.1.0",
	checks: [],
	metrics: createMetrics(),
	clock: systemClock,
	log,
	// They all come from this machine.
	maximumStreamsPerAddress: 1000,
});
const server = app.listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address() as AddressInfo;
process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${port}`, liveJob, variant })}\n`);

const Wish = z.object({ events: z.int().min(1) });
process.on("message", async (message) => {
	const { events } = Wish.parse(message);
	const body = { event: "progress", stage: "round", total: 1e6, unit: "layers", etaSeconds: 9, job: liveJob, fence: 1 };
	const numbers: number[] = [];
	for (let done = 1; done <= events; done++) {
		const text = JSON.stringify({ ...body, done, at: new Date().toISOString() });
		const { rows } = await sql<{ sequence: number }>`insert into job_events (job_id, sequence, at, kind, body)
			select ${liveJob}::uuid, max(sequence) + 1, now(), 'runner', ${text}::jsonb from job_events where job_id = ${liveJob}::uuid
			returning sequence`.execute(database.handle);
		numbers.push(...rows.map((row) => row.sequence));
		await new Promise((resolve) => setTimeout(resolve, 50));
	}
	process.send?.({ first: numbers.at(0), last: numbers.at(-1) });
});
process.on("disconnect", async () => {
	server.closeAllConnections();
	await database.close();
	process.exit(0);
});
