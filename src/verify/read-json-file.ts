import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { z } from "zod";
import { parseJson } from "../parse-json.ts";
import { assertCheck } from "./manifest-checks.ts";

/** A JSON file of a variant, as `schema` says; what is wrong with it is a `CheckFailure`. */
export async function readJsonFile<Shape extends z.ZodType>(
	directory: string,
	name: string,
	schema: Shape,
): Promise<z.infer<Shape>> {
	const bytes = await readFile(join(directory, name)).catch(() => null);
	const json = bytes === null ? undefined : parseJson(bytes);
	assertCheck(json !== undefined, `${name} is missing or is not JSON`);
	const parsed = schema.safeParse(json);
	const issue = parsed.error?.issues[0];
	assertCheck(parsed.success, `${name} is invalid at "${issue?.path.join(".") ?? ""}": ${issue?.message ?? ""}`);
	return parsed.data;
}
