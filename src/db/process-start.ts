import { readFileSync } from "node:fs";

/**
 * When a process started, in clock ticks since boot (field 22 of /proc/PID/stat), or `null` where that cannot be read.
 * Together with the pid it names one process: pids are given out again.
 */
export function processStartTicks(pid: number): string | null {
	try {
		const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
		// The command's name stands in parentheses and may hold spaces and parentheses itself.
		const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
		// A zombie has ended; only its parent's bookkeeping is left.
		if (fields[0] === "Z" || fields[0] === "X") return null;
		return fields[19] ?? null;
	} catch {
		return null;
	}
}
