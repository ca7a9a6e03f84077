import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { DatabaseSync } from "node:sqlite";
import { z } from "zod";
import { processStartTicks } from "./process-start.ts";

/**
 * One process a data directory. PGlite takes no lock of its own: two processes on one directory both report success
 * and one of them loses its rows. The lock is the kernel's, on a file beside the directory, taken through SQLite, since
 * Node has no call for it: it ends with its holder, however that ended and whatever container it was in. A second file
 * names the holder, for people.
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
	/** Absent: written by a version that took no lock of the kernel's. */
	kernel: z.literal(true).optional(),
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

/** Whether a holder that took no lock of the kernel's certainly no longer runs. What cannot be told counts as running. */
function isGone(holder: Holder): boolean {
	if (holder.kernel === true) return true;
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
	if (holder === null && !existsSync(path)) {
		return new DirectoryLockedError(
			`The data directory is in use by another process, which is just starting (${path}).`,
			null,
		);
	}
	if (holder === null) {
		return new DirectoryLockedError(
			`The lock file ${path} is not one of ours. Make sure that no other yaqa-bot uses this data directory, delete the file and start again.`,
			null,
		);
	}
	if (holder.host !== hostname()) {
		return new DirectoryLockedError(
			`The data directory is in use by process ${holder.pid} on ${holder.host} (${path}). Stop it${holder.kernel === true ? "" : "; if that machine is gone for good, delete the file and start again"}.`,
			holder.pid,
		);
	}
	return new DirectoryLockedError(
		`The data directory is in use by process ${holder.pid} (${path}). Stop it (kill ${holder.pid}), choose another data directory, or set DATABASE_URL to run several.`,
		holder.pid,
	);
}

/** The kernel's lock on the file, until it is closed or the process ends; `null` while somebody else has it. */
function lockFile(path: string): DatabaseSync | null {
	const file = new DatabaseSync(path, { timeout: 0 });
	try {
		file.exec("pragma locking_mode = exclusive; begin exclusive");
		return file;
	} catch (error) {
		file.close();
		if (error instanceof Error && /locked|busy/i.test(error.message)) return null;
		throw new Error(`The file ${path} cannot be locked, which the embedded database needs of its file system.`, {
			cause: error,
		});
	}
}

function readIfThere(path: string): string | null {
	return existsSync(path) ? readFileSync(path, "utf8") : null;
}

/** Takes the lock at `path`, or throws `DirectoryLockedError`. */
export function takeDirectoryLock(path: string): DirectoryLock {
	const held = lockFile(`${path}.held`);
	if (held === null) throw refuse(path, readHolder(readIfThere(path) ?? ""));
	try {
		// Only whoever has the kernel's lock touches the other file.
		const found = readIfThere(path);
		if (found !== null) {
			const holder = readHolder(found);
			if (holder === null || !isGone(holder)) throw refuse(path, holder);
		}
		const mine: Holder = {
			pid: process.pid,
			startTicks: processStartTicks(process.pid),
			host: hostname(),
			boot: bootId(),
			kernel: true,
		};
		const draft = `${path}.draft`;
		writeFileSync(draft, JSON.stringify(mine));
		renameSync(draft, path);
	} catch (error) {
		held.close();
		throw error;
	}
	let isReleased = false;
	return {
		release() {
			if (isReleased) return;
			isReleased = true;
			rmSync(path, { force: true });
			// The locked file stays: another process may wait for this very one.
			held.close();
		},
	};
}
