import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { ConfigurationFile } from "../src/config/schema.ts";
import { RunnerEvent } from "../src/protocol/events.ts";
import { JobSpec } from "../src/protocol/job-spec.ts";
import { Manifest } from "../src/protocol/manifest.ts";

/** The JSON Schemas in `config/` are written from the zod schemas, so that Python and editors see what TypeScript means. */

function schemaOf(title: string, schema: z.ZodType): string {
	const json = z.toJSONSchema(schema, { target: "draft-2020-12", io: "input", unrepresentable: "any" });
	return `${JSON.stringify({ title, ...json }, null, "\t")}\n`;
}

/** File name → content. */
export function generatedFiles(): ReadonlyMap<string, string> {
	return new Map([
		["yaqa-bot.schema.json", schemaOf("yaqa-bot configuration", ConfigurationFile)],
		["job-spec.schema.json", schemaOf("yaqa-runner job", JobSpec)],
		["events.schema.json", schemaOf("yaqa-runner event, one line of stdout", RunnerEvent)],
		["manifest.schema.json", schemaOf("manifest.json of a published variant", Manifest)],
	]);
}

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
export const CONFIG_DIRECTORY = join(ROOT, "config");
/** What the runner's package holds of `config/`, so that it is complete where only it is installed. */
export const RUNNER_LISTS = [
	"containers.json",
	"exit-codes.json",
	"memory.json",
	"recipes.json",
	"source-files.json",
] as const;
export const RUNNER_CONFIG_DIRECTORY = join(ROOT, "gpu-runner/yaqa_runner/config");

if (import.meta.main) {
	mkdirSync(CONFIG_DIRECTORY, { recursive: true });
	for (const [name, content] of generatedFiles()) {
		writeFileSync(join(CONFIG_DIRECTORY, name), content);
		process.stdout.write(`config/${name}\n`);
	}
	const formatted = spawnSync("biome", ["format", "--write", CONFIG_DIRECTORY], {
		stdio: ["ignore", "ignore", "inherit"],
	});
	process.exitCode = formatted.status ?? 1;
	for (const name of RUNNER_LISTS) {
		copyFileSync(join(CONFIG_DIRECTORY, name), join(RUNNER_CONFIG_DIRECTORY, name));
		process.stdout.write(`gpu-runner/yaqa_runner/config/${name}\n`);
	}
}
