import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Processes whose command line names a path below `directory`; a run of the bot does. */
export async function processesBelow(directory: string): Promise<number[]> {
	const { stdout } = await run("ps", ["-axww", "-o", "pid=,command="], { maxBuffer: 64 * 1024 * 1024 });
	return stdout.split("\n").flatMap((line) => {
		const match = /^\s*(\d+)\s+(.*)$/.exec(line);
		const pid = Number(match?.[1]);
		const command = match?.[2] ?? "";
		return command.includes(`${directory}/`) && pid !== process.pid ? [pid] : [];
	});
}

/** A run outlives the bot on purpose; the demo's own runs must not outlive the demo. */
export async function endRuns(directory: string): Promise<void> {
	for (const signal of ["SIGTERM", "SIGKILL"] as const) {
		for (let attempt = 0; attempt < 20; attempt++) {
			const pids = await processesBelow(directory);
			if (pids.length === 0) return;
			for (const pid of attempt === 0 ? pids : []) {
				try {
					process.kill(pid, signal);
				} catch {
					// It ended by itself meanwhile.
				}
			}
			await sleep(100);
		}
	}
}
