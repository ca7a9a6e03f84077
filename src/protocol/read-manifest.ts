import { lstat, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseJson } from "../parse-json.ts";
import { Manifest } from "./manifest.ts";

export const MANIFEST_NAME = "manifest.json";
const MAXIMUM_MANIFEST_BYTES = 64 * 2 ** 20;

/** The manifest in a variant's folder; `problem` says, after "the manifest", why there is none to be used. */
export async function readManifest(
	directory: string,
): Promise<{ readonly ok: true; readonly manifest: Manifest } | { readonly ok: false; readonly problem: string }> {
	const path = join(directory, MANIFEST_NAME);
	const found = await lstat(path).catch(() => null);
	if (found?.isFile() !== true) return { ok: false, problem: "is not there" };
	if (found.size > MAXIMUM_MANIFEST_BYTES) return { ok: false, problem: "is larger than 64 MiB" };
	const json = parseJson(await readFile(path));
	if (json === undefined) return { ok: false, problem: "is not JSON" };
	const parsed = Manifest.safeParse(json);
	if (parsed.success) return { ok: true, manifest: parsed.data };
	const [issue] = parsed.error.issues;
	return { ok: false, problem: `is invalid at "${issue?.path.join(".") ?? ""}": ${issue?.message ?? ""}` };
}
