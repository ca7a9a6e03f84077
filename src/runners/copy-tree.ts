import { constants } from "node:fs";
import { copyFile, link, lstat, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { diskFull, isDiskFull } from "../disk-full.ts";
import { PermanentError } from "../errors.ts";

const MAXIMUM_ENTRIES = 100_000;

function codeOf(error: unknown): string | null {
	return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : null;
}

async function copyInto(from: string, to: string, budget: { left: number }): Promise<void> {
	await mkdir(to, { recursive: true });
	for (const entry of await readdir(from, { withFileTypes: true })) {
		if (--budget.left < 0) throw new Error(`${from} holds more than ${MAXIMUM_ENTRIES} files.`);
		const source = join(from, entry.name);
		const target = join(to, entry.name);
		if (entry.isDirectory()) {
			await copyInto(source, target, budget);
		} else if (entry.isFile()) {
			try {
				await link(source, target);
			} catch (error) {
				if (!["EXDEV", "EPERM", "EMLINK"].includes(codeOf(error) ?? "")) throw error;
				await copyFile(source, target, constants.COPYFILE_EXCL);
			}
		} else {
			// A link would let a run point at files of this machine and have them published.
			throw new PermanentError({
				code: "unsafe-path",
				message: `The runner's output holds ${entry.name}, which is neither a file nor a folder.`,
				remedy: "Report this: the runner writes plain files only.",
			});
		}
	}
}

/** Makes `to` a copy of the tree `from`, whole or not at all. Files are shared (hard links) where the disk allows it. */
export async function copyTree(from: string, to: string): Promise<void> {
	const draft = `${to}.partial`;
	await rm(draft, { recursive: true, force: true });
	if (!(await lstat(from)).isDirectory()) throw new Error(`${from} is not a folder.`);
	try {
		await copyInto(from, draft, { left: MAXIMUM_ENTRIES });
		await rm(to, { recursive: true, force: true });
		await rename(draft, to);
	} catch (error) {
		await rm(draft, { recursive: true, force: true });
		if (isDiskFull(error)) throw new PermanentError(diskFull(to), { cause: error });
		throw error;
	}
}
