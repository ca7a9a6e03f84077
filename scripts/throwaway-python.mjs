// A Python environment of its own, for a tool that must not mix with what it looks at.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const root = join(import.meta.dirname, "..");
export const runnerPython = join(root, "gpu-runner", ".venv", "bin", "python");

export function run(command, args, options = {}) {
	return spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024, ...options });
}

/** Calls `use` with the folder of programs; `null` and why where the package cannot be installed. */
export function withPythonTool(requirement, use) {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-tool-"));
	try {
		run(existsSync(runnerPython) ? runnerPython : "python3", ["-m", "venv", folder]);
		const programs = join(folder, "bin");
		const installed = run(join(programs, "python"), ["-m", "pip", "install", "--quiet", requirement]);
		if (installed.status !== 0) return { made: null, why: (installed.stderr ?? "").trim().slice(0, 300) };
		return { made: use(programs), why: null };
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
}
