import { statfsSync } from "node:fs";
import type { Refusal } from "./errors.ts";

/** No space left, or none left to this account: for whoever writes, the same. */
export function isDiskFull(error: unknown): boolean {
	return error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT");
}

/** Bytes that this account may still write where `folder` lies. */
export function freeBytes(folder: string): number {
	const { bavail, bsize } = statfsSync(folder);
	return bavail * bsize;
}

/** `what`: what there was no room for. */
export function diskFull(what: string): Refusal {
	return {
		code: "disk-full",
		message: `The bot's disk is full: there was no room for ${what}.`,
		remedy:
			"The operator frees space, or points database.dataDirectory to a larger disk, then has the job tried once more.",
	};
}
