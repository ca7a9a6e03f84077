import { readdirSync, readFileSync } from "node:fs";
import { cpus } from "node:os";
import { statFields } from "./job-process.ts";

export type GroupUsage = { readonly cpuSeconds: number; readonly memoryBytes: number };

const TICKS_PER_SECOND = 100;

/** What the processes of a group hold and have used by now. */
export function groupUsage(group: number): GroupUsage {
	let ticks = 0;
	let kilobytes = 0;
	for (const name of readdirSync("/proc")) {
		const fields = /^\d+$/.test(name) ? statFields(Number(name)) : null;
		if (fields === null || Number(fields[2]) !== group) continue;
		ticks += Number(fields[11]) + Number(fields[12]);
		try {
			// The count in `stat` may lag by more than a small process holds.
			kilobytes += Number(/^Rss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${name}/smaps_rollup`, "utf8"))?.[1] ?? 0);
		} catch {
			// It ended while we looked.
		}
	}
	return { cpuSeconds: ticks / TICKS_PER_SECOND, memoryBytes: kilobytes * 1024 };
}

/** One sample as the Hub sends it; `secondsSince` the sample before lies between the two. */
export function metricsOf(
	before: GroupUsage,
	now: GroupUsage,
	{ secondsSince, memoryTotalBytes }: { readonly secondsSince: number; readonly memoryTotalBytes: number },
): Record<string, unknown> {
	const cores = secondsSince > 0 ? Math.max(0, now.cpuSeconds - before.cpuSeconds) / secondsSince : 0;
	return {
		cpu_usage_pct: Math.round((100 * cores) / Math.max(1, cpus().length)),
		cpu_millicores: Math.round(cores * 1000),
		memory_used_bytes: now.memoryBytes,
		memory_total_bytes: memoryTotalBytes,
		rx_bps: 0,
		tx_bps: 0,
		gpus: {},
		replica: "local",
	};
}
