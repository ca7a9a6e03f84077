import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { Configuration } from "./schema.ts";

/** This checkout. */
export const PROJECT_ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/[\\/]$/, "");
/** Keeps runs of this machine apart; run as a file, so that nothing else is imported before it. */
export const ISOLATION_SCRIPT = join(PROJECT_ROOT, "gpu-runner", "yaqa_runner", "machine", "isolated.py");
export const RUNNER_DIRECTORY = join(PROJECT_ROOT, "gpu-runner");

export function runnerPython(configuration: Configuration): string {
	return configuration.runner.python ?? join(RUNNER_DIRECTORY, ".venv", "bin", "python");
}

export function programVersion(): string {
	const path = join(PROJECT_ROOT, "package.json");
	if (!existsSync(path)) return "unknown";
	const parsed = z.object({ version: z.string() }).safeParse(JSON.parse(readFileSync(path, "utf8")));
	return parsed.success ? parsed.data.version : "unknown";
}
