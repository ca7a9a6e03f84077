import { createHash } from "node:crypto";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { diskFull, freeBytes, isDiskFull } from "../disk-full.ts";
import { PermanentError } from "../errors.ts";
import type { JobSpec } from "../protocol/job-spec.ts";
import { attemptHandle, attemptOf, parseAttempt } from "../records/attempt.ts";
import { dropCheckpoints, keepCheckpoint } from "./checkpoints.ts";
import { copyTree } from "./copy-tree.ts";
import { measureIsolation, NO_ISOLATION } from "./isolation.ts";
import { lost, meaningOfExit, vanished } from "./meaning-of-exit.ts";
import { listGroup, readProcess, signalGroup } from "./process-group.ts";
import { type EventPosition, type NumberedEvent, readEvents, readResult } from "./run-events.ts";
import { type RunFiles, readRunExit, readRunProcess, readRunSettings, runFiles, writeWhole } from "./run-files.ts";
import type { Runner } from "./runner.ts";
import { type Gpus, shareGpus } from "./share-gpus.ts";
import { type StartOptions, startRun } from "./start-run.ts";

export type LocalRunnerOptions = StartOptions & {
	/** Where a run's stderr stays after the run's folder is gone. */
	readonly logsDirectory: string;
	/** `null`: runs see all there are. */
	readonly gpus?: Gpus | null;
};

/** Below this much free space a run that vanished without a word is taken to have died of the full disk. */
const FULL_DISK_BYTES = 1024 * 1024;

function isAlive(files: RunFiles): boolean {
	const started = readRunProcess(files);
	return started !== null && readProcess(started.pid)?.startTicks === started.startTicks;
}

/** Ends the run and everything it started. */
async function endRun(files: RunFiles, graceSeconds: number): Promise<void> {
	const started = readRunProcess(files);
	if (started === null) return;
	const leader = readProcess(started.pid);
	// Another process got the pid: the whole group had ended before, else the number would still be taken.
	if (leader !== null && leader.startTicks !== started.startTicks) return;
	if (!signalGroup(started.pid, "SIGTERM")) return;
	const deadline = Date.now() + graceSeconds * 1000;
	while (listGroup(started.pid).length > 0) {
		if (Date.now() > deadline) signalGroup(started.pid, "SIGKILL");
		await sleep(50);
	}
}

async function keepLog(options: LocalRunnerOptions, files: RunFiles, handle: string): Promise<void> {
	try {
		await mkdir(options.logsDirectory, { recursive: true });
		await rename(files.log, join(options.logsDirectory, `${handle}.log`));
	} catch (error) {
		// A log that cannot be kept must not keep gigabytes of a run's files.
		if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
			options.log.warn("A run's log could not be kept", { handle, error });
		}
	}
}

/**
 * Runs jobs as processes of this machine, each in a process group and a folder of its own. Long, since its operations share
 * the folder of runs; each is one operation on one of them.
 */
export function createLocalRunner(options: LocalRunnerOptions): Runner {
	const { runsDirectory, log } = options;
	const positions = new Map<string, EventPosition>();
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
						const reported = { level: isolation.level, reason: isolation.reason };
						if (isolation.level === "none") log.warn("Runs cannot be isolated on this machine", reported);
						else log.info("Runs are isolated", reported);
						return isolation;
					},
				);

	async function listHeld(): Promise<readonly string[]> {
		const names = await readdir(runsDirectory).catch(() => []);
		return names.filter((name) => parseAttempt(name) !== null);
	}

	const gpus = shareGpus(options.gpus ?? null, async () =>
		(await listHeld())
			.map(filesOf)
			.filter(isAlive)
			.flatMap((files) => readRunSettings(files)?.environment["CUDA_VISIBLE_DEVICES"]?.split(",") ?? []),
	);

	async function start(files: RunFiles, spec: JobSpec): Promise<void> {
		const handle = attemptHandle(spec);
		const reserved = await gpus.reserve(handle);
		try {
			await startRun(options, { files, spec, gpus: reserved }, await measured);
		} finally {
			gpus.release(handle);
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
			if (exit !== null) return meaningOfExit(exit, files);
			const isFull = started !== null && freeBytes(runsDirectory) < FULL_DISK_BYTES;
			return isFull ? lost(diskFull(files.folder), false) : vanished(files);
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
			await endRun(files, options.graceSeconds);
		},

		async collect(handle, directory) {
			const files = filesOf(handle);
			await mkdir(join(directory, ".."), { recursive: true });
			await copyTree(files.staging, directory);
		},

		async setAside(handle) {
			const files = filesOf(handle);
			positions.delete(handle);
			await keepLog(options, files, handle);
			await keepCheckpoint({ runsDirectory, attempt: attemptOf(handle), staging: files.staging, log });
			await removeFolder(files.folder);
		},

		async discard(handle) {
			const files = filesOf(handle);
			positions.delete(handle);
			await keepLog(options, files, handle);
			await removeFolder(files.folder);
			await dropCheckpoints(runsDirectory, attemptOf(handle).job);
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
