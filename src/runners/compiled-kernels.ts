import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { cp, mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
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

/** What compiled code depends on, below the runner's directory: the loops, how they are called, and the compiler. */
const SOURCES = ["yaqa_runner/grids", "yaqa_runner/rounding/kernels"];
const FILES = ["yaqa_runner/pipeline/compile_kernels.py", "requirements.lock"];
const COMPILE_MILLISECONDS = 300_000;

async function fingerprint({ python, runnerDirectory }: KernelOptions): Promise<string> {
	const listed = SOURCES.map(async (folder) =>
		(await readdir(join(runnerDirectory, folder)))
			.filter((name) => name.endsWith(".py"))
			.map((name) => join(folder, name)),
	);
	const hash = createHash("sha256").update(python);
	for (const file of [...(await Promise.all(listed)).flat().sort(), ...FILES]) {
		// Where the runner is installed as a package, nothing else is beside it.
		const content = await readFile(join(runnerDirectory, file)).catch(() => "");
		hash.update(`\0${file}\0`).update(content);
	}
	return hash.digest("hex").slice(0, 12);
}

/** Removes what nobody takes any more: kernels of other sources, and drafts of compilations that were killed. */
async function removeOthers(cacheDirectory: string, own: string): Promise<void> {
	for (const name of await readdir(cacheDirectory)) {
		const path = join(cacheDirectory, name);
		const state = await stat(path).catch(() => null);
		const isMade = name.startsWith("draft-") && state !== null && Date.now() - state.ctimeMs < COMPILE_MILLISECONDS;
		if (path !== own && !isMade) await rm(path, { recursive: true, force: true });
	}
}

/** The folder of kernels as they are compiled by a process that opens no model; made when it is first asked for. */
export async function compiledKernels(options: KernelOptions): Promise<string> {
	const { cacheDirectory } = options;
	const folder = join(cacheDirectory, `kernels-${await fingerprint(options)}`);
	if ((await stat(folder).catch(() => null)) !== null) return folder;
	await mkdir(cacheDirectory, { recursive: true });
	const draft = join(cacheDirectory, `draft-${randomUUID()}`);
	try {
		await mkdir(draft);
		await run(options.python, ["-m", "yaqa_runner.pipeline.compile_kernels"], {
			cwd: options.runnerDirectory,
			env: { ...options.environment, HOME: draft, NUMBA_CACHE_DIR: draft },
			timeout: COMPILE_MILLISECONDS,
		});
		await rename(draft, folder).catch(async (error: unknown) => {
			// Another process was faster; its kernels are as good.
			if ((await stat(folder).catch(() => null)) === null) throw error;
		});
		await removeOthers(cacheDirectory, folder);
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
