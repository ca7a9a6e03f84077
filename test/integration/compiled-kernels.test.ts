import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { giveKernels } from "../../src/runners/compiled-kernels.ts";

/** Stands for the Python that compiles: says what it was asked, and leaves a kernel. */
const COMPILER = `#!/bin/sh
echo "$@" >> "$LOG"
[ -e "$LOG.broken" ] && exit 1
echo compiled > "$NUMBA_CACHE_DIR/kernel.nbc"
`;

let folder = "";
before(() => {
	folder = mkdtempSync(join(tmpdir(), "yaqa-kernels-"));
	for (const sources of ["grids", "rounding/kernels"]) {
		mkdirSync(join(folder, "runner", "yaqa_runner", sources), { recursive: true });
		writeFileSync(join(folder, "runner", "yaqa_runner", sources, "loop.py"), "");
	}
	writeFileSync(join(folder, "python"), COMPILER);
	chmodSync(join(folder, "python"), 0o755);
});
after(() => rmSync(folder, { recursive: true, force: true }));

const options = (name: string) => ({
	cacheDirectory: join(folder, name),
	python: join(folder, "python"),
	runnerDirectory: join(folder, "runner"),
	environment: { PATH: process.env["PATH"] ?? "", LOG: join(folder, `${name}.log`) },
});
const compilations = (name: string) =>
	readFileSync(join(folder, `${name}.log`), "utf8")
		.trim()
		.split("\n").length;

test("what a run writes among its kernels is in no later run's", async () => {
	const [first, second] = [join(folder, "first"), join(folder, "second")];
	assert.equal(await giveKernels(options("cache"), first), null);
	assert.deepEqual(readdirSync(first), ["kernel.nbc"]);
	writeFileSync(join(first, "planted.nbc"), "planted");
	writeFileSync(join(first, "kernel.nbc"), "planted");
	assert.equal(await giveKernels(options("cache"), second), null);
	assert.deepEqual(readdirSync(second), ["kernel.nbc"]);
	assert.equal(readFileSync(join(second, "kernel.nbc"), "utf8"), "compiled\n");
	assert.equal(compilations("cache"), 1);
});

test("loops that changed are compiled anew, and runs that start at once get the same", async () => {
	await giveKernels(options("anew"), join(folder, "before"));
	writeFileSync(join(folder, "runner", "yaqa_runner", "grids", "loop.py"), "# longer");
	const runs = ["a", "b", "c"].map((name) => join(folder, name));
	assert.deepEqual(await Promise.all(runs.map((run) => giveKernels(options("anew"), run))), [null, null, null]);
	for (const run of runs) assert.deepEqual(readdirSync(run), ["kernel.nbc"]);
	assert.ok(compilations("anew") > 1);
	assert.equal(readdirSync(join(folder, "anew")).length, 1, "drafts are gone, and what the changed loops gave before");
});

test("a compiler that fails is told of and leaves the run to itself", async () => {
	writeFileSync(join(folder, "broken.log.broken"), "");
	assert.match((await giveKernels(options("broken"), join(folder, "without"))) ?? "", /compile_kernels/);
	assert.deepEqual(readdirSync(join(folder, "broken")), []);
});
