import { spawn } from "node:child_process";
import { closeSync, existsSync, fstatSync, openSync, writeSync } from "node:fs";
import { listGroup, readProcess, signalGroup } from "./process-group.ts";
import { claimWhole, type RunExit, readRunSettings, runFiles, writeWhole } from "./run-files.ts";

/**
 * `node supervise-run.ts FOLDER`: runs one job and writes down how it ended.
 * It leads a process group of its own, apart from the bot's, so that a bot that is killed leaves the run going and finds
 * it again; it watches time and memory, because nobody else may be there to do so.
 */

const WATCH_INTERVAL_MS = 500;

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error("usage: supervise-run FOLDER");
const files = runFiles(folder);
const found = readRunSettings(files);
if (found === null) throw new Error(`There is no ${files.settings}.`);
const settings = found;

const me = readProcess(process.pid);
// A second supervisor of the same attempt ends here: the first one's claim stands.
const claimed = claimWhole(
	files.process,
	JSON.stringify({ pid: process.pid, startTicks: me === null ? "" : me.startTicks }),
);
if (!claimed) process.exit(0);

let ended: RunExit["ended"] = null;
let detail: string | null = null;
let residentBytesPeak = 0;
let written = 0;

function finish(code: number | null, signal: string | null): never {
	writeWhole(files.exit, JSON.stringify({ code, signal, ended, detail, residentBytesPeak } satisfies RunExit));
	// Whatever the run left in its group ends with it, this process included.
	signalGroup(process.pid, "SIGKILL");
	process.exit(0);
}

if (existsSync(files.cancel)) {
	ended = "cancelled";
	finish(null, null);
}

const events = openSync(files.events, "a", 0o600);
const log = openSync(files.log, "a", 0o600);

function keepLog(bytes: Buffer): void {
	const room = settings.maximumLogBytes - written;
	if (room <= 0) return;
	try {
		written += writeSync(log, bytes.subarray(0, room));
		if (written >= settings.maximumLogBytes) writeSync(log, "\n[the log is cut here]\n");
	} catch {
		// A full disk must not end the run's supervisor.
		written = Number.POSITIVE_INFINITY;
	}
}

const child = spawn(settings.command, settings.arguments, {
	cwd: settings.workingDirectory,
	env: settings.environment,
	stdio: ["ignore", events, "pipe"],
});
child.stderr?.on("data", keepLog);

function end(reason: NonNullable<RunExit["ended"]>, why: string): void {
	if (ended !== null) return;
	ended = reason;
	detail = why;
	child.kill("SIGTERM");
	setTimeout(() => {
		for (const member of listGroup(process.pid)) {
			if (member.pid === process.pid) continue;
			try {
				process.kill(member.pid, "SIGKILL");
			} catch {
				// It ended by itself.
			}
		}
	}, settings.graceSeconds * 1000).unref();
}

const startedAt = performance.now();
const watch = setInterval(() => {
	const resident = listGroup(process.pid)
		.filter((member) => member.pid !== process.pid)
		.reduce((sum, member) => sum + member.residentBytes, 0);
	residentBytesPeak = Math.max(residentBytesPeak, resident);
	if ((performance.now() - startedAt) / 1000 > settings.timeoutSeconds) {
		end("timed-out", `It ran for more than ${settings.timeoutSeconds} seconds.`);
	} else if (settings.memoryBytes !== null && resident > settings.memoryBytes) {
		end("memory", `It held ${resident} bytes of memory; ${settings.memoryBytes} are allowed.`);
	} else if (fstatSync(events).size > settings.maximumEventBytes) {
		end("events", `It wrote more than ${settings.maximumEventBytes} bytes of events.`);
	}
}, WATCH_INTERVAL_MS);

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
	process.on(signal, () => end("cancelled", `The supervisor got ${signal}.`));
}

child.on("error", (error) => {
	clearInterval(watch);
	ended = "spawn";
	detail = error.message;
	finish(null, null);
});
child.on("close", (code, signal) => {
	clearInterval(watch);
	closeSync(events);
	closeSync(log);
	finish(code, signal);
});
