// Usage: node scripts/excerpt-hub-description.ts FILE
// Out of the Hub's own API description (https://huggingface.co/.well-known/openapi.json, stored as FILE) it takes the
// operations that docs/calls.md names, for test/contract/calls.test.ts, and the names of all there are.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { documentedCalls } from "../test/contract/documented-calls.ts";

const Description = z.object({
	openapi: z.string(),
	info: z.object({ title: z.string(), version: z.string() }),
	paths: z.record(z.string(), z.record(z.string(), z.record(z.string(), z.unknown()))),
});
const METHODS = ["get", "head", "post", "put", "patch", "delete"] as const;

const [file = ""] = process.argv.slice(2);
const { openapi, info, paths } = Description.parse(JSON.parse(readFileSync(file, "utf8")));
const wanted = documentedCalls("The Hub");
const taken: Record<string, Record<string, unknown>> = {};
const names: string[] = [];
for (const [path, methods] of Object.entries(paths)) {
	for (const method of METHODS) {
		const operation = methods[method];
		if (operation === undefined) continue;
		names.push(`${method.toUpperCase()} ${path}`);
		const pattern = new RegExp(`^${path.replaceAll(/[.*+?^$()|[\]\\]/g, "\\$&").replaceAll(/\{[^}]+\}/g, "[^/]+")}/?$`);
		const called = wanted.some(
			(call) =>
				call.method === method.toUpperCase() && [call.path, `${call.path}/FILE`].some((one) => pattern.test(one)),
		);
		if (!called) continue;
		taken[path] ??= {};
		taken[path][method] = { parameters: operation["parameters"] ?? [], requestBody: operation["requestBody"] };
	}
}
const excerpt = {
	openapi,
	info: {
		title: `${info.title}: what the bot calls`,
		version: info.version,
		description:
			"Excerpt of the API description that Hugging Face publishes at https://huggingface.co/.well-known/openapi.json, as it was on 2026-08-17, for interoperability. The description names no licence; Hugging Face publishes its documentation and clients, which carry the same API, under Apache-2.0. Made by scripts/excerpt-hub-description.ts.",
	},
	paths: taken,
	"x-all-operations": names.sort(),
};
writeFileSync(
	join(import.meta.dirname, "../test/contract/hub-calls.openapi.json"),
	`${JSON.stringify(excerpt, null, "\t")}\n`,
);
process.stdout.write(`${Object.keys(taken).length} paths of ${Object.keys(paths).length}\n`);
