import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

export type JobProcess = {
	readonly pid: number;
	/** Clock ticks since boot: with the pid they name one process, since pids are given out again. */
	readonly startTicks: string;
	/** Resolves when the leader has ended and nothing of its group is left. */
	readonly ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;
};

const GRACE_MILLISECONDS = 3000;

/** What the system says of a process, from its state on; `null`: it has ended. */
export function statFields(pid: number): readonly string[] | null {
	try {
		const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
		// The command's name stands in parentheses and may hold anything.
		return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
	} catch {
		return null;
	}
}

export function startTicksOf(pid: number): string | null {
	return statFields(pid)?.[19] ?? null;
}

function groupIsEmpty(group: number): boolean {
	return readdirSync("/proc").every((name) => {
		if (!/^\d+$/.test(name)) return true;
		const fields = statFields(Number(name));
		return fields === null || fields[0] === "Z" || Number(fields[2]) !== group;
	});
}

function signal(group: number, name: "SIGTERM" | "SIGKILL"): void {
	try {
		process.kill(-group, name);
	} catch (error) {
		if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
	}
}

/** Ends a process group: asked first, then killed. Resolves when nothing of it is left. */
export async function endGroup(group: number, graceMilliseconds = GRACE_MILLISECONDS): Promise<void> {
	signal(group, "SIGTERM");
	const deadline = Date.now() + graceMilliseconds;
	while (!groupIsEmpty(group)) {
		if (Date.now() > deadline) signal(group, "SIGKILL");
		await sleep(25);
	}
}

/** Runs a command as the leader of a process group of its own; `onLine` gets what it and its children print. */
export function startJobProcess(request: {
	readonly command: string;
	readonly arguments: readonly string[];
	readonly directory: string;
	readonly environment: Readonly<Record<string, string>>;
	readonly onLine: (line: string) => void;
}): Promise<JobProcess> {
	return new Promise((resolve, reject) => {
		const child: ChildProcess = spawn(request.command, [...request.arguments], {
			cwd: request.directory,
			env: { ...request.environment },
			detached: true,
			stdio: ["ignore", "pipe", "pipe"],
		});
		const finished = new Promise<{ code: number | null; signal: string | null }>((settle) => {
			child.once("exit", (code, name) => settle({ code, signal: name }));
		});
		const readers = [child.stdout, child.stderr].map((stream) => {
			if (stream === null) return Promise.resolve();
			const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY });
			lines.on("line", request.onLine);
			return new Promise<void>((settle) => lines.once("close", settle));
		});
		child.once("error", reject);
		child.once("spawn", () => {
			const { pid } = child;
			if (pid === undefined) return;
			const ended = finished.then(async (result) => {
				// A container ends with its first process; so does everything that was started in this group.
				await endGroup(pid, 0);
				await Promise.all(readers);
				return result;
			});
			resolve({ pid, startTicks: startTicksOf(pid) ?? "", ended });
		});
	});
}
