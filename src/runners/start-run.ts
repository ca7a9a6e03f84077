import { spawn } from "node:child_process";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { PermanentError, RetryableError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { JobSpec } from "../protocol/job-spec.ts";
import { takeCheckpoint } from "./checkpoints.ts";
import { giveKernels } from "./compiled-kernels.ts";
import { type Isolation, type IsolationOptions, pathsIn } from "./isolation.ts";
import { type RunFiles, type RunSettings, readRunProcess, writeWhole } from "./run-files.ts";

/** How every run of this machine is started. */
export type StartOptions = {
	/** One folder a run is made in it. Runners on one machine with different folders do not see each other's runs. */
	readonly runsDirectory: string;
	/** Compiled kernels that every run gets a copy of. */
	readonly cacheDirectory: string;
	readonly python: string;
	/** The folder that holds the package `yaqa_runner`. */
	readonly runnerDirectory: string;
	/** What a run may see of this process's environment: paths and devices, no tokens. */
	readonly environment: Readonly<Record<string, string>>;
	readonly timeoutSeconds: number;
	readonly memoryBytes: number | null;
	readonly graceSeconds: number;
	/** How runs are kept from the rest of the machine; absent: not at all. */
	readonly isolation?: IsolationOptions;
	/** A checkout of llama.cpp whose converter runs use; absent: the package that is installed. */
	readonly llamaCpp?: string | null;
	/** Arguments before `run`; tests put another program in the runner's place. */
	readonly programArguments?: readonly string[];
	readonly log: Log;
};

type StartRequest = {
	readonly files: RunFiles;
	readonly spec: JobSpec;
	/** `null`: the run sees all there are. */
	readonly gpus: readonly string[] | null;
};

const SUPERVISOR = fileURLToPath(new URL("./supervise-run.ts", import.meta.url));
const START_DEADLINE_MS = 15_000;
const MAXIMUM_LOG_BYTES = 8 * 1024 * 1024;
const MAXIMUM_EVENT_BYTES = 512 * 1024 * 1024;

/** Kernels of this run alone. */
function kernelFolder(files: RunFiles): string {
	return join(files.home, "numba");
}

function settingsFor(options: StartOptions, request: StartRequest, isolation: Isolation): RunSettings {
	const { files, spec, gpus } = request;
	const threads = spec.limits.threads;
	const llamaCpp = options.llamaCpp ?? null;
	const program = [
		options.python,
		...(options.programArguments ?? ["-m", "yaqa_runner"]),
		"run",
		files.spec,
		"--out",
		files.staging,
		...(llamaCpp === null ? [] : ["--llama-cpp", llamaCpp]),
		// Several GPUs share the sketch out.
		...(gpus !== null && gpus.length > 1 ? ["--processes", String(gpus.length)] : []),
	];
	const [command = options.python, ...args] = isolation.wrap(program, {
		shown: [files.spec, ...pathsIn(spec), ...(llamaCpp === null ? [] : [llamaCpp])],
		written: [files.staging, files.home, files.temporary],
	});
	return {
		command,
		arguments: args,
		workingDirectory: options.runnerDirectory,
		environment: {
			...options.environment,
			...(gpus === null ? {} : { CUDA_VISIBLE_DEVICES: gpus.join(",") }),
			HOME: files.home,
			TMPDIR: files.temporary,
			HF_HOME: join(files.home, "huggingface"),
			HF_HUB_OFFLINE: "1",
			TRANSFORMERS_OFFLINE: "1",
			HF_HUB_DISABLE_TELEMETRY: "1",
			PYTHONUNBUFFERED: "1",
			PYTHONDONTWRITEBYTECODE: "1",
			NUMBA_CACHE_DIR: kernelFolder(files),
			TRITON_CACHE_DIR: join(files.home, "triton"),
			TORCHINDUCTOR_CACHE_DIR: join(files.home, "inductor"),
			...(threads === undefined ? {} : { OMP_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) }),
		},
		timeoutSeconds: options.timeoutSeconds,
		memoryBytes: spec.limits.memoryBytes ?? options.memoryBytes,
		graceSeconds: options.graceSeconds,
		maximumLogBytes: MAXIMUM_LOG_BYTES,
		maximumEventBytes: MAXIMUM_EVENT_BYTES,
	};
}

/** Starts the supervisor of the run in `files`. */
async function superviseFrom(files: RunFiles, searchPath: string): Promise<void> {
	const supervisor = spawn(process.execPath, [SUPERVISOR, files.folder], {
		cwd: files.folder,
		// The supervisor holds no tokens either: the run could read its environment.
		env: { PATH: searchPath },
		detached: true,
		stdio: "ignore",
	});
	const failed = Promise.withResolvers<never>();
	failed.promise.catch(() => undefined);
	supervisor.on("error", failed.reject);
	supervisor.unref();
	const deadline = Date.now() + START_DEADLINE_MS;
	while (readRunProcess(files) === null) {
		if (Date.now() > deadline) throw new RetryableError("The run's supervisor did not start in time.");
		await Promise.race([sleep(20), failed.promise]);
	}
}

/** Makes the run's folders and files, and returns when its supervisor has said that it is there. */
export async function startRun(options: StartOptions, request: StartRequest, isolation: Isolation): Promise<void> {
	const { files, spec } = request;
	for (const folder of [files.staging, files.home, files.temporary]) {
		await mkdir(folder, { recursive: true, mode: 0o700 });
	}
	if (isolation.level === "none" && options.isolation?.required === true) {
		throw new PermanentError({
			code: "runner-unavailable",
			message: `Runs cannot be isolated on this machine: ${isolation.reason ?? "the system does not allow it"}`,
			remedy:
				"Whoever runs the bot lets its account make namespaces (`yaqa-bot doctor` says what holds), or sets runner.isolation to auto; then retries the job.",
		});
	}
	if (options.programArguments === undefined) {
		const failure = await giveKernels(options, kernelFolder(files));
		if (failure !== null) options.log.warn("A run compiles its kernels itself", { job: spec.job, error: failure });
	}
	await takeCheckpoint(options.runsDirectory, spec.job, files.staging);
	const placed: JobSpec = { ...spec, staging: { kind: "directory", path: files.staging } };
	writeWhole(files.spec, JSON.stringify(placed, null, "\t"));
	// The folder around it keeps it from others; the run may have another account.
	await chmod(files.spec, 0o644);
	writeWhole(files.settings, JSON.stringify(settingsFor(options, request, isolation), null, "\t"));
	await superviseFrom(files, options.environment["PATH"] ?? "");
}
