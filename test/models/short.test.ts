import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { SHORT_KINDS } from "./kinds.ts";
import { CONTAINERS, rowsOfKind } from "./rows.ts";
import { startWorker } from "./worker.ts";

/** The short form of `npm run test:models`. */

let folder = "";
let worker: ReturnType<typeof startWorker> | null = null;
before(async () => {
	folder = await mkdtemp(join(tmpdir(), "yaqa-models-"));
	worker = startWorker(folder);
});
after(async () => {
	await worker?.end();
	await rm(folder, { recursive: true, force: true });
});

// llama.cpp's kernels for AMX end on it: the judge asks again without them.
const hasAmx = existsSync("/proc/cpuinfo") && /\bamx_int8\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
test("latent attention on a processor with AMX", { skip: hasAmx ? false : "skipped: no AMX" }, async () => {
	assert.ok(worker !== null);
	const { rows, unmade } = await rowsOfKind(worker, folder, "deepseek_v3");
	assert.equal(unmade, null);
	const gguf = rows.find(({ container }) => container === "gguf");
	assert.equal(gguf?.outcome, "ok", JSON.stringify(gguf));
});

describe("unlike kinds of models in every container: right in its engine, or refused by name before anything is computed", () => {
	for (const [kind, wanted] of Object.entries(SHORT_KINDS)) {
		test(kind, async () => {
			assert.ok(worker !== null);
			const { rows, unmade } = await rowsOfKind(worker, folder, kind);
			assert.equal(unmade, null);
			const found = rows.map(({ container, outcome }) => `${container} ${outcome}`);
			const expected = CONTAINERS.map((container) => `${container} ${wanted.includes(container) ? "ok" : "refused"}`);
			assert.deepEqual(found, expected, JSON.stringify(rows, null, 1));
			for (const row of rows) if (row.outcome === "ok") assert.ok((row.share ?? 0) > 0.2);
		});
	}
});
