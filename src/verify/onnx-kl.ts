import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { RetryableError } from "../errors.ts";

type OnnxKl = { readonly klNats: number; readonly sequences: number; readonly positions: number };
type OnnxKlResult =
	| { readonly ok: true; readonly kl: OnnxKl }
	/** The files are at fault: the runtime would not load or run them. */
	| { readonly ok: false; readonly reason: string };

export type ChildLimits = {
	readonly milliseconds: number;
	/** Resident bytes; the child is ended above them. */
	readonly memoryBytes: number;
	readonly threads: number;
};

const Answer = z.union([
	z.object({ klNats: z.number(), sequences: z.int(), positions: z.int() }),
	z.object({ error: z.string() }),
]);

const CHILD = fileURLToPath(new URL("./onnx-kl-child.ts", import.meta.url));
// A small file is done in 200 ms: a slower look could miss what it took.
const MEMORY_CHECK_MILLISECONDS = 25;
const MAXIMUM_OUTPUT_CHARACTERS = 65_536;

/**
 * Mean KL(original ‖ ONNX file) in nats a token over the positions of `verification.safetensors`, computed by
 * onnxruntime in a child process. A model file is input from outside to native code: the child has an empty
 * environment (no tokens to lose), may write no file and start no process, and is ended at its limits.
 */
export function onnxKl(request: {
	readonly graphPath: string;
	readonly verificationPath: string;
	readonly limits: ChildLimits;
	readonly signal?: AbortSignal;
}): Promise<OnnxKlResult> {
	const { graphPath, verificationPath, limits, signal } = request;
	signal?.throwIfAborted();
	return new Promise((resolve, reject) => {
		const child = spawn(
			process.execPath,
			[
				"--permission",
				"--allow-addons",
				"--allow-fs-read=*",
				"--disable-warning=SecurityWarning",
				"--disable-warning=ExperimentalWarning",
				CHILD,
				graphPath,
				verificationPath,
				String(limits.threads),
			],
			{ env: {}, stdio: ["ignore", "pipe", "pipe"] },
		);
		let output = "";
		let complaints = "";
		let ended: { reason: string } | { abort: true } | null = null;
		const end = (why: { reason: string } | { abort: true }): void => {
			ended ??= why;
			child.kill("SIGKILL");
		};
		const timer = setTimeout(
			() => end({ reason: `onnxruntime did not finish within ${limits.milliseconds / 1000} s` }),
			limits.milliseconds,
		);
		const memoryTimer = setInterval(async () => {
			if (child.pid === undefined) return;
			const resident = await residentBytes(child.pid);
			if (resident > limits.memoryBytes) {
				end({ reason: `onnxruntime took more than ${limits.memoryBytes} bytes of memory` });
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
				resolve({ ok: false, reason: ended.reason });
				return;
			}
			const answer = parseAnswer(output);
			if (answer === null) {
				const how = killedBy === null ? `exit code ${code}` : `signal ${killedBy}`;
				resolve({ ok: false, reason: `onnxruntime ended with ${how}. ${complaints.trim().slice(-500)}`.trim() });
			} else if ("error" in answer) resolve({ ok: false, reason: answer.error.slice(0, 1000) });
			else resolve({ ok: true, kl: answer });
		});
	});
}

function parseAnswer(output: string): z.infer<typeof Answer> | null {
	try {
		return Answer.parse(JSON.parse(output.trim().split("\n").at(-1) ?? ""));
	} catch {
		return null;
	}
}

/** 0 where there is no /proc: the time limit remains. */
async function residentBytes(pid: number): Promise<number> {
	const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
	return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}
