import assert from "node:assert/strict";
import { test } from "node:test";
import { runBurst } from "../support/burst-run.ts";
import { onEveryDatabase } from "../support/databases.ts";

await onEveryDatabase((databases, name) => {
	test(`a burst with losses, duplicates and disorder against two replicas ends as the clean run does, on ${name}`, async () => {
		const report = await runBurst(async () => await (await databases()).open(), 40);
		assert.equal(report.lost, 0);
		assert.equal(report.duplicateJobs, 0);
	});
});
