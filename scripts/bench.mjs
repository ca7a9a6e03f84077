#!/usr/bin/env node
// `npm run bench:kl`, `bench:rounding`, `bench:sweep`, `test:bigger`: sets up what is missing, then a script of gpu-runner/benchmarks.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { python, reportFailure, root, setUp } from "./setup.mjs";

const SCRIPTS = { kl: "kl_table.py", rounding: "rounding.py", sweep: "sweep.py", bigger: "bigger.py" };

const [name = "", ...rest] = process.argv.slice(2);
const script = Object.hasOwn(SCRIPTS, name) ? SCRIPTS[name] : null;
if (script === null) {
	process.stderr.write(`Usage: node scripts/bench.mjs ${Object.keys(SCRIPTS).join("|")} [OPTION…]\n`);
	process.exit(2);
}
try {
	await setUp();
} catch (error) {
	process.exit(reportFailure(error));
}
const folder = join(root, "gpu-runner", "benchmarks");
const { status, signal } = spawnSync(python, [join(folder, script), ...rest], { cwd: folder, stdio: "inherit" });
process.exit(status ?? (signal === null ? 1 : 130));
