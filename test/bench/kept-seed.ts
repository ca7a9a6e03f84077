import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { MIGRATIONS } from "../../src/db/migrate.ts";

const CACHE = join(import.meta.dirname, "../../.cache");
const PREFIX = "site-seed-";

/** A folder for an embedded database of so many variants, by what makes it: another seed is another folder. */
function folderOf(variants: number): string {
	const seed = [
		"site-seed.ts",
		"../support/web-fixtures.ts",
		"../../config/recipes.json",
		"../../src/fit/memory.ts",
	].map((file) => readFileSync(join(import.meta.dirname, file), "utf8"));
	const made = createHash("sha256")
		.update(JSON.stringify([seed, MIGRATIONS]))
		.digest("hex")
		.slice(0, 12);
	return join(CACHE, `${PREFIX}${made}-${variants}`);
}

/** Copies what an earlier run filled to `directory`; `false`: there is none. */
export function takeKeptSeed(directory: string, variants: number): boolean {
	const folder = folderOf(variants);
	if (!existsSync(folder)) return false;
	cpSync(folder, directory, { recursive: true });
	return true;
}

/** Keeps a filled database that is closed; those of other seeds go. */
export function keepSeed(directory: string, variants: number): void {
	const folder = folderOf(variants);
	const [current = ""] = folder.slice(CACHE.length + 1).split(/-\d+$/);
	mkdirSync(CACHE, { recursive: true });
	for (const name of readdirSync(CACHE)) {
		if (name.startsWith(PREFIX) && !name.startsWith(current)) rmSync(join(CACHE, name), { recursive: true });
	}
	const incomplete = `${folder}-${process.pid}.part`;
	cpSync(directory, incomplete, { recursive: true });
	if (existsSync(folder)) rmSync(incomplete, { recursive: true });
	else renameSync(incomplete, folder);
}
