import { randomUUID } from "node:crypto";
import { open, readFile, rename, rm } from "node:fs/promises";
import type { z } from "zod";

/** Writes beside the target and renames over it: a reader, or a start after SIGKILL, sees the old file or the new one. */
export async function writeFileAtomically(path: string, data: string | Uint8Array): Promise<void> {
	const temporary = `${path}.${randomUUID()}.tmp`;
	try {
		const handle = await open(temporary, "wx", 0o600);
		try {
			await handle.writeFile(data);
			await handle.sync();
		} finally {
			await handle.close();
		}
		await rename(temporary, path);
	} catch (error) {
		await rm(temporary, { force: true });
		throw error;
	}
}

export async function writeJsonAtomically(path: string, value: unknown): Promise<void> {
	await writeFileAtomically(path, JSON.stringify(value));
}

/** The parsed file; `null` where there is none. A file that does not fit its schema is a fault, not an absence. */
export async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | null> {
	let text: string;
	try {
		text = await readFile(path, "utf8");
	} catch (error) {
		if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
		throw error;
	}
	const parsed = schema.safeParse(JSON.parse(text));
	if (!parsed.success) throw new Error(`${path} is not what the local Hub writes there: ${parsed.error.message}`);
	return parsed.data;
}
