import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { makeModels, rowsOf, SHORT } from "./run.ts";

/** The short form of `npm run test:engines`. */

let folder = "";
before(async () => {
	folder = await mkdtemp(join(tmpdir(), "yaqa-engines-"));
	await makeModels(SHORT.models, folder);
});
after(() => rm(folder, { recursive: true, force: true }));

describe("engines compute from finished files what the manifest says", () => {
	for (const model of SHORT.models) {
		test(model, async () => {
			const rows = await rowsOf({
				model,
				directory: join(folder, model),
				recipes: SHORT.recipes,
				engines: SHORT.engines,
				work: join(folder, `${model}.work`),
			});
			assert.equal(rows.length, SHORT.engines.length);
			for (const row of rows) assert.ok(row.ok, JSON.stringify(row));
		});
	}
});
