import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync, statfsSync } from "node:fs";
import { chmod, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { diskFull, isDiskFull } from "../disk-full.ts";
import { PermanentError, type Refusal, RetryableError } from "../errors.ts";
import { type Log, redactText } from "../log.ts";
import type { JobSpec } from "../protocol/job-spec.ts";
import { RUNNER_EXIT_CODES } from "../protocol/runner-exit-codes.ts";
import { attemptHandle, attemptOf, parseAttempt } from "../records/attempt.ts";
import { copyTree } from "./copy-tree.ts";
import { type Isolation, type IsolationOptions, measureIsolation, NO_ISOLATION, pathsIn } from "./isolation.ts";
import { listGroup, readProcess, signalGroup } from "./process-group.ts";
import { type EventPosition, type NumberedEvent, readEvents, readResult } from "./run-events.ts";
import {
	type RunExit,
	type RunFiles,
	type RunSettings,
	readRunExit,
	readRunProcess,
	readRunSettings,
	runFiles,
	writeWhole,
} from "./run-files.ts";
import type { Observation, Runner } from "./runner.ts";

export type LocalRunnerOptions = {
	/** One folder a run is made in it. Runners on one machine with different folders do not see each other's runs. */
	readonly runsDirectory: string;
	/** Where a run's stderr stays after the run's folder is gone. */
	readonly logsDirectory: string;
	/** Compiled kernels, kept from run to run. */
	readonly cacheDirectory: string;
	readonly python: string;
	/** The folder that holds the package `yaqa_runner`. */
	readonly runnerDirectory: string;
	/** What a run may see of this process's environment: paths and devices, no tokens. */
	readonly environment: Readonly<Record<string, string>>;
	readonly timeoutSeconds: number;
	readonly memoryBytes: number | null;
	readonly graceSeconds: number;
	/** GPUs that runs share out, by the number or UUID that CUDA_VISIBLE_DEVICES takes; `null`: runs see all there are. */
	readonly gpus?: { readonly devices: readonly string[]; readonly perRun: number } | null;
	/** How runs are kept from the rest of the machine; absent: not at all. */
	readonly isolation?: IsolationOptions;
	readonly log: Log;
	/** Arguments before `run`; tests put another program in the runner's place. */
	readonly programArguments?: readonly string[];
};

/** Of an output folder, what a later attempt starts from: a sketch, whole or in parts. */
const CHECKPOINTS = ["sketch", "sketch.partial"];
/** Folders of compiled kernels, below the cache directory. */
const KERNEL_CACHES = ["numba", "triton", "inductor"];
const SUPERVISOR = fileURLToPath(new URL("./supervise-run.ts", import.meta.url));
const START_DEADLINE_MS = 15_000;
const MAXIMUM_LOG_BYTES = 8 * 1024 * 1024;
const MAXIMUM_EVENT_BYTES = 512 * 1024 * 1024;
/** Below this much free space a run that vanished without a word is taken to have died of the full disk. */
const FULL_DISK_BYTES = 1024 * 1024;

/** The end of the run's stderr: what a person looks for first. */
function logTail(files: RunFiles): string {
	let file: number;
	try {
		file = openSync(files.log, "r");
	} catch {
		return "";
	}
	try {
		const { size } = fstatSync(file);
		const buffer = Buffer.alloc(Math.min(size, 2000));
		readSync(file, buffer, 0, buffer.length, size - buffer.length);
		const lines = redactText(buffer.toString("utf8")).trim().split("\n");
		return lines.slice(-8).join("\n").slice(-1500);
	} finally {
		closeSync(file);
	}
}

function withTail(message: string, files: RunFiles): string {
	const tail = logTail(files);
	return tail === "" ? message : `${message} The end of its log:\n${tail}`;
}

function lost(refusal: Refusal, retryable: boolean): Observation {
	return { status: "lost", refusal, retryable };
}

/** What a run that ended without a result line died of. */
function judgeExit(exit: RunExit, files: RunFiles): Observation {
	switch (exit.ended) {
		case "timed-out":
			return lost(
				{
					code: "timed-out",
					message: withTail(exit.detail ?? "It ran too long.", files),
					remedy: "Raise runner.timeoutSeconds, or ask for fewer variants at a time, then retry the job.",
				},
				false,
			);
		case "memory":
			return lost(
				{
					code: "out-of-memory",
					message: exit.detail ?? "It held too much memory.",
					remedy: "Raise runner.memoryBytes or use a machine with more memory, then retry the job.",
				},
				false,
			);
		case "events":
			return lost(
				{
					code: "internal",
					message: exit.detail ?? "It wrote too many events.",
					remedy: "Report this with the run's log.",
				},
				false,
			);
		case "cancelled":
			return lost(
				{ code: "cancelled", message: "The run was stopped.", remedy: "Retry the job when it is wanted again." },
				true,
			);
		case "spawn":
			return lost(
				{
					code: "internal",
					message: `The runner could not be started: ${exit.detail ?? "unknown reason"}.`,
					remedy: "Run `npm run setup`, or set runner.python to a Python that has yaqa-runner; then retry the job.",
				},
				false,
			);
		case null:
			break;
	}
	if (exit.signal !== null) {
		return lost(
			{
				code: "runner-lost",
				message: withTail(`The run was killed by ${exit.signal}.`, files),
				remedy:
					exit.signal === "SIGKILL"
						? "The system kills programs when memory runs out: free some, or set runner.memoryBytes; then retry the job."
						: "Retry the job.",
			},
			true,
		);
	}
	switch (exit.code) {
		case RUNNER_EXIT_CODES["invalid-spec"]:
			return lost(
				{
					code: "invalid-spec",
					message: withTail("The runner did not accept its job.", files),
					remedy: "Make sure that yaqa-bot and yaqa-runner are of the same version (`npm run setup`).",
				},
				false,
			);
		case RUNNER_EXIT_CODES["source-refused"]:
			return lost(
				{
					code: "source-refused",
					message: withTail("The runner refused the model.", files),
					remedy: "See the job's log for the reason.",
				},
				false,
			);
		case RUNNER_EXIT_CODES["out-of-memory"]:
			return lost(
				{
					code: "out-of-memory",
					message: withTail("The runner ran out of memory.", files),
					remedy: "Use a machine with more memory, or a smaller calibration; then retry the job.",
				},
				false,
			);
		case RUNNER_EXIT_CODES["disk-full"]:
			return lost(diskFull(files.folder), false);
		case RUNNER_EXIT_CODES.interrupted:
			return lost(
				{ code: "interrupted", message: "The run was interrupted by a signal.", remedy: "Retry the job." },
				true,
			);
		default:
			return lost(
				{
					code: "internal",
					message: withTail(`The runner ended with exit code ${exit.code} and no result.`, files),
					remedy: "This is a bug in the runner, or its Python environment is broken (`yaqa-bot doctor`).",
				},
				false,
			);
	}
}

function freeBytes(folder: string): number {
	const { bavail, bsize } = statfsSync(folder);
	return bavail * bsize;
}

/** Runs jobs as processes of this machine, each in a process group and a folder of its own. */
export function createLocalRunner(options: LocalRunnerOptions): Runner {
	const { runsDirectory, log } = options;
	const positions = new Map<string, EventPosition>();
	/** GPUs of runs whose supervisor has not started yet. */
	const reserved = new Map<string, readonly string[]>();
	let reserving: Promise<void> = Promise.resolve();
	const filesOf = (handle: string) => {
		attemptOf(handle);
		return runFiles(join(runsDirectory, handle));
	};

	/** Measured once, from the start on. */
	const measured =
		options.isolation === undefined
			? Promise.resolve(NO_ISOLATION)
			: measureIsolation(options.isolation, { folder: runsDirectory, environment: options.environment }).then(
					(isolation) => {
						const told = { level: isolation.level, reason: isolation.reason };
						if (isolation.level === "none") log.warn("Runs cannot be isolated on this machine", told);
						else log.info("Runs are isolated", told);
						return isolation;
					},
				);

	function settingsFor(
		files: RunFiles,
		spec: JobSpec,
		gpus: readonly string[] | null,
		isolation: Isolation,
	): RunSettings {
		const threads = spec.limits.threads;
		const program = [
			options.python,
			...(options.programArguments ?? ["-m", "yaqa_runner"]),
			"run",
			files.spec,
			"--out",
			files.staging,
			// Several GPUs share the sketch out.
			...(gpus !== null && gpus.length > 1 ? ["--processes", String(gpus.length)] : []),
		];
		const [command = options.python, ...args] = isolation.wrap(program, {
			shown: [files.spec, ...pathsIn(spec)],
			written: [
				files.staging,
				files.home,
				files.temporary,
				...KERNEL_CACHES.map((name) => join(options.cacheDirectory, name)),
			],
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
				NUMBA_CACHE_DIR: join(options.cacheDirectory, "numba"),
				TRITON_CACHE_DIR: join(options.cacheDirectory, "triton"),
				TORCHINDUCTOR_CACHE_DIR: join(options.cacheDirectory, "inductor"),
				...(threads === undefined ? {} : { OMP_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) }),
			},
			timeoutSeconds: options.timeoutSeconds,
			memoryBytes: spec.limits.memoryBytes ?? options.memoryBytes,
			graceSeconds: options.graceSeconds,
			maximumLogBytes: MAXIMUM_LOG_BYTES,
			maximumEventBytes: MAXIMUM_EVENT_BYTES,
		};
	}

	const isAlive = (files: RunFiles): boolean => {
		const started = readRunProcess(files);
		return started !== null && readProcess(started.pid)?.startTicks === started.startTicks;
	};

	/** GPUs of runs that go on, or are about to begin. What is taken is written into the run's folder before it starts. */
	async function takenGpus(): Promise<ReadonlySet<string>> {
		const taken = new Set<string>();
		for (const handle of await listHeld()) {
			const files = filesOf(handle);
			const starting = reserved.get(handle);
			const listed =
				starting ?? (isAlive(files) ? readRunSettings(files)?.environment["CUDA_VISIBLE_DEVICES"]?.split(",") : []);
			for (const device of listed ?? []) taken.add(device);
		}
		return taken;
	}

	async function reserveGpus(handle: string): Promise<readonly string[] | null> {
		const { gpus } = options;
		if (gpus == null) return null;
		// One after the other: two that look at once would find the same ones free.
		const mine = reserving.then(async () => {
			const taken = await takenGpus();
			const free = gpus.devices.filter((device) => !taken.has(device)).slice(0, gpus.perRun);
			if (free.length < gpus.perRun) {
				throw new RetryableError(
					`${gpus.perRun === 1 ? "No GPU is" : `Fewer than ${gpus.perRun} GPUs are`} free on this machine.`,
				);
			}
			reserved.set(handle, free);
			return free;
		});
		reserving = mine.then(
			() => undefined,
			() => undefined,
		);
		return await mine;
	}

	async function listHeld(): Promise<readonly string[]> {
		const names = await readdir(runsDirectory).catch(() => []);
		return names.filter((name) => parseAttempt(name) !== null);
	}

	/** What earlier attempts at the job left: `JOB-FENCE.aside`, each with nothing but their checkpoints. */
	async function asideOf(job: string): Promise<readonly { readonly path: string; readonly fence: number }[]> {
		const names = await readdir(runsDirectory).catch(() => []);
		return names
			.flatMap((name) => {
				const [, owner, fence] = /^(.{36})-(\d{1,9})\.aside$/.exec(name) ?? [];
				return owner === job ? [{ path: join(runsDirectory, name), fence: Number(fence) }] : [];
			})
			.toSorted((one, other) => other.fence - one.fence);
	}

	/** Lets the run go on from where the newest earlier attempt was. */
	async function takeCheckpoint(files: RunFiles, job: string): Promise<void> {
		for (const { path } of await asideOf(job)) {
			for (const name of CHECKPOINTS) {
				// One that is there already is newer, or was put there before a crash of this very step.
				await rename(join(path, name), join(files.staging, name)).catch(() => undefined);
			}
			await rm(path, { recursive: true, force: true });
		}
	}

	async function keepLog(files: RunFiles, handle: string): Promise<void> {
		try {
			await mkdir(options.logsDirectory, { recursive: true });
			await rename(files.log, join(options.logsDirectory, `${handle}.log`));
		} catch (error) {
			// A log that cannot be kept must not keep gigabytes of a run's files.
			if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
				log.warn("A run's log could not be kept", { handle, error });
			}
		}
	}

	async function start(files: RunFiles, spec: JobSpec): Promise<void> {
		const handle = attemptHandle(spec);
		const gpus = await reserveGpus(handle);
		try {
			await startWith(files, spec, gpus);
		} finally {
			reserved.delete(handle);
		}
	}

	async function startWith(files: RunFiles, spec: JobSpec, gpus: readonly string[] | null): Promise<void> {
		const caches = KERNEL_CACHES.map((name) => join(options.cacheDirectory, name));
		for (const folder of [files.staging, files.home, files.temporary, ...caches]) {
			await mkdir(folder, { recursive: true, mode: 0o700 });
		}
		const isolation = await measured;
		if (isolation.level === "none" && options.isolation?.required === true) {
			throw new PermanentError({
				code: "runner-unavailable",
				message: `Runs cannot be isolated on this machine: ${isolation.reason ?? "the system does not allow it"}`,
				remedy:
					"Whoever runs the bot lets its account make namespaces (`yaqa-bot doctor` says what holds), or sets runner.isolation to auto; then retries the job.",
			});
		}
		await takeCheckpoint(files, spec.job);
		const placed: JobSpec = { ...spec, staging: { kind: "directory", path: files.staging } };
		writeWhole(files.spec, JSON.stringify(placed, null, "\t"));
		// The folder around it keeps it from others; the run may have another account.
		await chmod(files.spec, 0o644);
		writeWhole(files.settings, JSON.stringify(settingsFor(files, spec, gpus, isolation), null, "\t"));
		const supervisor = spawn(process.execPath, [SUPERVISOR, files.folder], {
			cwd: files.folder,
			// The supervisor holds no tokens either: the run could read its environment.
			env: { PATH: options.environment["PATH"] ?? "" },
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

	return {
		name: `local-${createHash("sha256").update(`${hostname()}\n${runsDirectory}`).digest("hex").slice(0, 10)}`,
		isRemote: false,

		async dispatch(spec) {
			const handle = attemptHandle(spec);
			const files = filesOf(handle);
			try {
				await mkdir(files.folder, { recursive: true, mode: 0o700 });
				if (readRunProcess(files) === null) await start(files, spec);
			} catch (error) {
				if (isDiskFull(error)) throw new PermanentError(diskFull(files.folder), { cause: error });
				throw error;
			}
			return { handle };
		},

		async find(job, fence) {
			const handle = attemptHandle({ job, fence });
			try {
				await stat(filesOf(handle).folder);
				return handle;
			} catch {
				return null;
			}
		},

		async observe(handle) {
			const attempt = attemptOf(handle);
			const files = filesOf(handle);
			const started = readRunProcess(files);
			const alive = isAlive(files);
			// Read after the process was looked for: a run that ends in between has written its exit by now.
			const exit = readRunExit(files);
			if (exit === null && alive) return { status: "running" };
			const result = readResult(files.events, attempt);
			if (result !== null && (exit === null || exit.ended === null)) return { status: "finished", result };
			if (exit !== null) return judgeExit(exit, files);
			if (started !== null && freeBytes(runsDirectory) < FULL_DISK_BYTES) return lost(diskFull(files.folder), false);
			return lost(
				{
					code: "runner-lost",
					message: withTail("The run's process is gone without having said why.", files),
					remedy: "It was killed from outside or the machine was restarted. Retry the job.",
				},
				true,
			);
		},

		async events(handle, after) {
			const attempt = attemptOf(handle);
			const files = filesOf(handle);
			const known = positions.get(handle);
			let position: EventPosition = known !== undefined && known.number <= after ? known : { number: 0, offset: 0 };
			for (;;) {
				const read = readEvents(files.events, position, attempt);
				const wanted: readonly NumberedEvent[] = read.events.filter((event) => event.number > after);
				const moved = read.position.offset !== position.offset;
				// The position before the batch is kept: the caller may die and ask for the batch again.
				positions.set(handle, position);
				if (wanted.length > 0 || !moved) return wanted;
				position = read.position;
			}
		},

		async cancel(handle) {
			const files = filesOf(handle);
			try {
				// A supervisor that only just starts sees this and ends before it runs anything.
				writeWhole(files.cancel, "");
			} catch (error) {
				// The folder is gone, perhaps this moment: a run is discarded only after it was ended.
				if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
				throw error;
			}
			const started = readRunProcess(files);
			if (started === null) return;
			const leader = readProcess(started.pid);
			// Another process got the pid: the whole group had ended before, else the number would still be taken.
			if (leader !== null && leader.startTicks !== started.startTicks) return;
			if (!signalGroup(started.pid, "SIGTERM")) return;
			const deadline = Date.now() + options.graceSeconds * 1000;
			while (listGroup(started.pid).length > 0) {
				if (Date.now() > deadline) signalGroup(started.pid, "SIGKILL");
				await sleep(50);
			}
		},

		async collect(handle, directory) {
			const files = filesOf(handle);
			await mkdir(join(directory, ".."), { recursive: true });
			await copyTree(files.staging, directory);
		},

		async setAside(handle) {
			const { job, fence } = attemptOf(handle);
			const files = filesOf(handle);
			positions.delete(handle);
			await keepLog(files, handle);
			const aside = join(runsDirectory, `${job}-${fence}.aside`);
			for (const name of CHECKPOINTS) {
				try {
					await stat(join(files.staging, name));
				} catch {
					continue;
				}
				await mkdir(aside, { recursive: true });
				await rename(join(files.staging, name), join(aside, name)).catch((error: unknown) => {
					// Without it the next attempt begins anew, which is no reason to fail this one.
					log.warn("A checkpoint could not be kept", { handle, error });
				});
			}
			await removeFolder(files.folder);
		},

		async discard(handle) {
			const files = filesOf(handle);
			positions.delete(handle);
			await keepLog(files, handle);
			await removeFolder(files.folder);
			for (const { path } of await asideOf(attemptOf(handle).job)) await rm(path, { recursive: true, force: true });
		},

		listHeld,
	};
}

async function removeFolder(folder: string): Promise<void> {
	// Two clean-ups may meet here, or a cancel that is about to leave its mark: out of the way first, in one step, so
	// that nothing appears in a folder that is being emptied.
	const doomed = `${folder}.discarded`;
	try {
		await rename(folder, doomed);
	} catch (error) {
		if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
	}
	await rm(doomed, { recursive: true, force: true });
}
