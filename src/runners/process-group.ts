import { readdirSync, readFileSync } from "node:fs";

type ProcessEntry = {
	readonly pid: number;
	readonly group: number;
	/** Clock ticks since boot: pid and start together name one process, since pids are given out again. */
	readonly startTicks: string;
	readonly residentBytes: number;
};

const PAGE_BYTES = 4096;

function parseStat(pid: number, stat: string): ProcessEntry | null {
	// The command's name stands in parentheses and may hold spaces and parentheses itself.
	const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
	const [state, , group] = fields;
	// A zombie has ended; only its parent's bookkeeping is left.
	if (state === "Z" || state === "X" || group === undefined) return null;
	return {
		pid,
		group: Number(group),
		startTicks: fields[19] ?? "",
		residentBytes: Number(fields[21] ?? 0) * PAGE_BYTES,
	};
}

/** A living process, or `null`. */
export function readProcess(pid: number): ProcessEntry | null {
	try {
		return parseStat(pid, readFileSync(`/proc/${pid}/stat`, "utf8"));
	} catch {
		return null;
	}
}

/** Every living member of a process group. */
export function listGroup(group: number): readonly ProcessEntry[] {
	return readdirSync("/proc").flatMap((name) => {
		if (!/^\d+$/.test(name)) return [];
		const entry = readProcess(Number(name));
		return entry !== null && entry.group === group ? [entry] : [];
	});
}

/** Signals a whole group; `false` when nothing of it is left. */
export function signalGroup(group: number, signal: "SIGTERM" | "SIGKILL"): boolean {
	try {
		process.kill(-group, signal);
		return true;
	} catch (error) {
		if (error instanceof Error && "code" in error && error.code === "ESRCH") return false;
		throw error;
	}
}
