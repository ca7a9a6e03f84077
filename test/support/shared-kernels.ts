import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../demo/stack.ts";

/** Compiled kernels of every run that tests start: compiling them takes longer than a tiny job. */
export const SHARED_KERNELS = join(root, ".cache", "test-kernels");

/** Gives the bot whose data will lie in `dataDirectory` the kernels of those before it. */
export function shareKernels(dataDirectory: string): void {
	mkdirSync(SHARED_KERNELS, { recursive: true });
	mkdirSync(dataDirectory, { recursive: true });
	symlinkSync(SHARED_KERNELS, join(dataDirectory, "cache"));
}
