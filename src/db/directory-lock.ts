import { linkSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { z } from "zod";
import { processStartTicks } from "./process-start.ts";

/**
 * One process a data directory. PGlite takes no lock of its own: two processes on one directory both report success
 * and one of them loses its rows. The lock file stands beside the directory and names its holder by pid and start time,
 * so that a file left by SIGKILL is recognised even when the pid was given to another process since.
 */
export type DirectoryLock = { release(): void };

export class DirectoryLockedError extends Error {
	override readonly name = "DirectoryLockedError";
	readonly holderPid: number | null;
	constructor(message: string, holderPid: number | null) {
		super(message);
		this.holderPid = holderPid;
	}
}

const Holder = z.object({
	pid: z.int().min(1),
	startTicks: z.string().nullable(),
	host: z.string(),
	boot: z.string().nullable(),
});
type Holder = z.infer<typeof Holder>;

function bootId(): string | null {
	try {
		return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
	} catch {
		return null;
	}
}

function isAlive(pid: number): boolean {
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		// EPERM: it lives and belongs to somebody else.
		return error instanceof Error && "code" in error && error.code === "EPERM";
	}
}

/** Whether the holder certainly no longer runs. What cannot be told counts as running. */
function isGone(holder: Holder): boolean {
	if (holder.host !== hostname()) return false;
	const boot = bootId();
	if (holder.boot !== null && boot !== null && holder.boot !== boot) return true;
	if (!isAlive(holder.pid)) return true;
	const ticks = processStartTicks(holder.pid);
	return holder.startTicks !== null && ticks !== null && ticks !== holder.startTicks;
}

function readHolder(text: string): Holder | null {
	try {
		const parsed = Holder.safeParse(JSON.parse(text));
		return parsed.success ? parsed.data : null;
	} catch {
		return null;
	}
}

function refuse(path: string, holder: Holder | null): DirectoryLockedError {
	if (holder === null) {
		return new DirectoryLockedError(
			`The lock file ${path} is not one of ours. Make sure that no other yaqa-bot uses this data directory, delete the file and start again.`,
			null,
		);
	}
	if (holder.host !== hostname()) {
		return new DirectoryLockedError(
			`The data directory is in use by process ${holder.pid} on ${holder.host} (${path}). Stop it; if that machine is gone for good, delete the file and start again.`,
			holder.pid,
		);
	}
	return new DirectoryLockedError(
		`The data directory is in use by process ${holder.pid} (${path}). Stop it (kill ${holder.pid}), choose another data directory, or set DATABASE_URL to run several.`,
		holder.pid,
	);
}

function errorCode(error: unknown): string | null {
	return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : null;
}

/** Takes the lock at `path`, or throws `DirectoryLockedError`. */
export function takeDirectoryLock(path: string): DirectoryLock {
	const mine: Holder = {
		pid: process.pid,
		startTicks: processStartTicks(process.pid),
		host: hostname(),
		boot: bootId(),
	};
	const content = JSON.stringify(mine);
	const draft = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`;
	writeFileSync(draft, content, { flag: "wx" });
	try {
		for (let attempt = 0; attempt < 5; attempt++) {
			try {
				// A hard link appears whole or not at all, and fails when the name is taken.
				linkSync(draft, path);
				return {
					release() {
						try {
							if (readFileSync(path, "utf8") === content) unlinkSync(path);
						} catch (error) {
							if (errorCode(error) !== "ENOENT") throw error;
						}
					},
				};
			} catch (error) {
				if (errorCode(error) !== "EEXIST") throw error;
			}
			let found: string;
			try {
				found = readFileSync(path, "utf8");
			} catch (error) {
				if (errorCode(error) === "ENOENT") continue;
				throw error;
			}
			const holder = readHolder(found);
			if (holder === null || !isGone(holder)) throw refuse(path, holder);
			const stale = `${draft}.stale`;
			try {
				renameSync(path, stale);
			} catch (error) {
				if (errorCode(error) === "ENOENT") continue;
				throw error;
			}
			// Another process may have replaced the stale file between the read and the rename: give that one back.
			const moved = readFileSync(stale, "utf8");
			if (moved !== found) linkSync(stale, path);
			rmSync(stale, { force: true });
		}
		throw refuse(path, readHolder(readFileSync(path, "utf8")));
	} finally {
		rmSync(draft, { force: true });
	}
}
