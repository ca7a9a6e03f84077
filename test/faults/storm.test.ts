import assert from "node:assert/strict";
import { test } from "node:test";
import { runStorm } from "./storm.ts";

/** The short form of `npm run test:faults`. */
test("a storm of kills and faults loses, doubles and leaks nothing", { timeout: 500_000 }, async (context) => {
	const report = await runStorm({
		database: "PGlite",
		seed: 5,
		events: 10,
		kills: 1,
		say: (line) => context.diagnostic(line),
	});
	assert.deepEqual([report.lost, report.duplicates, report.leaks], [[], [], []]);
	assert.equal(report.kills, 1);
	assert.ok(report.faults > 0);
	assert.ok(report.accepted > 0);
});
