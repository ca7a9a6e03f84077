import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { cp, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

type KernelOptions = {
	readonly cacheDirectory: string;
	readonly python: string;
	/** The folder that holds the package `yaqa_runner`. */
	readonly runnerDirectory: string;
	readonly environment: Readonly<Record<string, string>>;
};

/** Where the sources of compiled loops are, below the runner's directory. */
const SOURCES = ["yaqa_runner/grids", "yaqa_runner/rounding/kernels"];
const COMPILE_MILLISECONDS = 300_000;

/** Changes with the loops' sources and the Python that compiles them, as numba's own index does. */
async function fingerprint({ python, runnerDirectory }: KernelOptions): Promise<string> {
	const hash = createHash("sha256").update(python);
	for (const folder of SOURCES) {
		for (const name of (await readdir(join(runnerDirectory, folder))).filter((one) => one.endsWith(".py")).sort()) {
			const { mtimeMs, size } = await stat(join(runnerDirectory, folder, name));
			hash.update(`\0${folder}/${name}\0${mtimeMs}\0${size}`);
		}
	}
	return hash.digest("hex").slice(0, 12);
}

/** The folder of kernels as they are compiled by a process that opens no model; made when it is first asked for. */
export async function compiledKernels(options: KernelOptions): Promise<string> {
	const folder = join(options.cacheDirectory, `kernels-${await fingerprint(options)}`);
	if ((await stat(folder).catch(() => null)) !== null) return folder;
	await mkdir(options.cacheDirectory, { recursive: true });
	const draft = join(options.cacheDirectory, `draft-${randomUUID()}`);
	try {
		await mkdir(draft);
		await run(options.python, ["-m", "yaqa_runner.pipeline.compile_kernels"], {
			cwd: options.runnerDirectory,
			env: { ...options.environment, HOME: draft, NUMBA_CACHE_DIR: draft },
			timeout: COMPILE_MILLISECONDS,
		});
		// Another process may have been faster; its kernels are as good.
		await rename(draft, folder).catch(() => undefined);
	} finally {
		await rm(draft, { recursive: true, force: true });
	}
	return folder;
}

/**
 * Puts compiled kernels into `folder`, for one run alone: what a run writes beside them, a model that took it over may
 * have written, and code that later runs load must not come from there. Answers why there are none, where that is so;
 * the run then compiles its own, which costs it seconds.
 */
export async function giveKernels(options: KernelOptions, folder: string): Promise<string | null> {
	try {
		await cp(await compiledKernels(options), folder, { recursive: true });
		return null;
	} catch (error) {
		return error instanceof Error ? error.message : String(error);
	}
}
