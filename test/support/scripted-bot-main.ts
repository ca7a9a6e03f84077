import { systemClock } from "../../src/clock.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { silentLog } from "../../src/log.ts";
import { scriptedBot, worldFolder } from "./scripted-bot.ts";
import { scriptedWorld } from "./scripted-ports.ts";

/** A bot of its own process, for tests that kill it. Arguments: the data directory, and `sweep REPO` or nothing. */
const [dataDirectory = "", ...repos] = process.argv.slice(2);
const database = await openDatabase({
	dataDirectory,
	databaseUrl: process.env["DATABASE_URL"] ?? null,
	poolSize: 4,
	clock: systemClock,
	log: silentLog,
});
const bot = scriptedBot({ database, world: scriptedWorld(worldFolder(dataDirectory)), dataDirectory });
await bot.engine.start();
process.stdout.write("started\n");
for (const repo of repos) {
	const outcome = await bot.engine.recordRequest({
		kind: "push",
		sourceRepo: repo,
		recipes: [],
		requester: null,
		replyTo: null,
		dedupeKey: `request:${repo}`,
	});
	process.stdout.write(`${outcome.kind === "planned" ? outcome.job.id : outcome.kind}\n`);
}
process.on("SIGTERM", async () => {
	await bot.engine.stop();
	await database.close();
	process.exit(0);
});
