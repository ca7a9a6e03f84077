import { systemClock } from "../../src/clock.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { createLog } from "../../src/log.ts";
import { scriptedBot, worldFolder } from "./scripted-bot.ts";
import { scriptedWorld } from "./scripted-ports.ts";

/**
 * A bot of its own process, for tests that kill it. Arguments: the data directory, and the repos to record a push of.
 * Warnings and errors go to stderr, which tests of one bot ignore.
 */
const [dataDirectory = "", ...repos] = process.argv.slice(2);
const log = createLog({
	level: process.env["SCRIPTED_BOT_LOG"] === undefined ? "error" : "warn",
	write: (line) => void process.stderr.write(`${line}\n`),
	now: () => systemClock.now(),
});
const database = await openDatabase({
	dataDirectory,
	databaseUrl: process.env["DATABASE_URL"] ?? null,
	poolSize: 4,
	clock: systemClock,
	log,
});
const bot = scriptedBot({
	database,
	// Replicas on machines of their own share the Hub, not the data directory.
	world: scriptedWorld(process.env["SCRIPTED_WORLD"] ?? worldFolder(dataDirectory)),
	dataDirectory,
	log,
});
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
