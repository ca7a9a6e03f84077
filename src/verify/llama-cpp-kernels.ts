import { mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";

/**
 * llama.cpp brings its kernels for processors in libraries, one for each generation, and takes the best that the
 * processor can run: `libggml-cpu-zen4.so`.
 */
const LIBRARY = /^libggml-cpu-([\w.]+)\.so$/;

/**
 * Generations whose kernels end the process on models that the others run: those for AMX on latent attention
 * (DeepSeek, GLM 4.7 Flash) and on LFM2.
 */
export const FRAGILE_KERNELS: ReadonlySet<string> = new Set(["sapphirerapids"]);

/** The generation that a library is for: `zen4`. */
export function kernelsOf(libraryPath: string): string | null {
	return LIBRARY.exec(basename(libraryPath))?.[1] ?? null;
}

/** A folder with links to the libraries beside `libraryPath` of every other generation; who gets it removes it. */
export async function otherKernels(libraryPath: string): Promise<string> {
	const libraries = dirname(libraryPath);
	const folder = await mkdtemp(join(tmpdir(), "yaqa-kernels-"));
	try {
		for (const name of await readdir(libraries)) {
			if (LIBRARY.test(name) && name !== basename(libraryPath))
				await symlink(join(libraries, name), join(folder, name));
		}
		return folder;
	} catch (error) {
		await rm(folder, { recursive: true, force: true });
		throw error;
	}
}
