import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { RetryableError } from "../errors.ts";

export type ChildLimits = {
	readonly milliseconds: number;
	/** Resident bytes; the child is ended above them. */
	readonly memoryBytes: number;
	readonly threads: number;
};

export type ChildAnswer =
	/** The last line that the child wrote. */
	| { readonly ok: true; readonly line: string }
	/**
	 * The files are at fault: the engine died of them, or passed its limits. `killedBy`: the signal of its own that
	 * ended it; `output`: what it had written by then.
	 */
	| {
			readonly ok: false;
			readonly reason: string;
			readonly killedBy: NodeJS.Signals | null;
			readonly output: string;
	  };

// A small file is done in 200 ms: a slower look could miss what it took.
const MEMORY_CHECK_MILLISECONDS = 25;
const MAXIMUM_OUTPUT_CHARACTERS = 262_144;

/**
 * Runs a program of ours that hands a model file to an engine. A model file is input from outside to native code: the
 * child has an empty environment (no tokens to lose), may write no file, and is ended at its limits.
 */
export function runLimitedChild(request: {
	/** Whose limits they are, for the reason: `onnxruntime`. */
	readonly engine: string;
	readonly script: string;
	readonly arguments: readonly string[];
	/** Some engines start a process of their own to try their binary. */
	readonly mayStartProcesses?: boolean;
	readonly limits: ChildLimits;
	readonly signal?: AbortSignal;
}): Promise<ChildAnswer> {
	const { engine, script, limits, signal } = request;
	signal?.throwIfAborted();
	return new Promise((resolve, reject) => {
		const child = spawn(
			process.execPath,
			[
				"--permission",
				"--allow-addons",
				"--allow-fs-read=*",
				...(request.mayStartProcesses === true ? ["--allow-child-process"] : []),
				"--disable-warning=SecurityWarning",
				"--disable-warning=ExperimentalWarning",
				script,
				...request.arguments,
			],
			// A ggml that aborts starts a debugger on itself where one is installed, outside the child's limits.
			{ env: { GGML_NO_BACKTRACE: "1" }, stdio: ["ignore", "pipe", "pipe"] },
		);
		let output = "";
		let complaints = "";
		let ended: { reason: string } | { abort: true } | null = null;
		const end = (why: { reason: string } | { abort: true }): void => {
			ended ??= why;
			child.kill("SIGKILL");
		};
		const timer = setTimeout(
			() => end({ reason: `${engine} did not finish within ${limits.milliseconds / 1000} s` }),
			limits.milliseconds,
		);
		const memoryTimer = setInterval(async () => {
			if (child.pid === undefined) return;
			const resident = await residentBytes(child.pid);
			if (resident > limits.memoryBytes) {
				end({ reason: `${engine} took more than ${limits.memoryBytes} bytes of memory` });
			}
		}, MEMORY_CHECK_MILLISECONDS);
		const abort = (): void => end({ abort: true });
		signal?.addEventListener("abort", abort, { once: true });
		const cleanUp = (): void => {
			clearTimeout(timer);
			clearInterval(memoryTimer);
			signal?.removeEventListener("abort", abort);
		};
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			output = (output + text).slice(-MAXIMUM_OUTPUT_CHARACTERS);
		});
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			complaints = (complaints + text).slice(-2000);
		});
		child.on("error", (error) => {
			cleanUp();
			reject(new RetryableError("The verifying process could not be started.", { cause: error }));
		});
		child.on("close", (code, killedBy) => {
			cleanUp();
			if (ended !== null && "abort" in ended) {
				reject(signal?.reason ?? new Error("aborted"));
				return;
			}
			if (ended !== null) {
				resolve({ ok: false, reason: ended.reason, killedBy: null, output });
				return;
			}
			const line = output.trim().split("\n").at(-1) ?? "";
			if (code === 0 && line !== "") {
				resolve({ ok: true, line });
				return;
			}
			const how = killedBy === null ? `exit code ${code}` : `signal ${killedBy}`;
			const reason = `${engine} ended with ${how}. ${complaints.trim().slice(-500)}`.trim();
			resolve({ ok: false, reason, killedBy, output });
		});
	});
}

/** 0 where there is no /proc: the time limit remains. */
async function residentBytes(pid: number): Promise<number> {
	const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
	return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}
