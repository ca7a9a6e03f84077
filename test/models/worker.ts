import { type ChildProcess, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { z } from "zod";
import { PYTHON, ROOT } from "../support/quantize-command.ts";

/** What became of one kind in one container, before its engine was asked. */
const WorkerRow = z.object({
	container: z.string(),
	recipe: z.string(),
	outcome: z.enum(["finished", "refused", "late", "crashed", "wrong"]),
	note: z.string().optional(),
	folder: z.string().optional(),
	verification: z.string().optional(),
	manifestKl: z.number().optional(),
	share: z.number().optional(),
	kept: z.array(z.string()).optional(),
	unaccounted: z.array(z.string()).optional(),
	engine: z.string().optional(),
	engineKl: z.number().optional(),
});
export type WorkerRow = z.infer<typeof WorkerRow>;
const Answer = z.union([
	z.object({ ready: z.literal(true) }),
	z.object({ kind: z.string(), rows: z.array(WorkerRow), unmade: z.string().optional() }),
]);

/** Tiny models take seconds; a machine that others use too takes longer. */
const KIND_MILLISECONDS = 300_000;
const KIND_BYTES = 5e9;
/** What one kind leaves in memory is not carried on for ever. */
const KINDS_A_PROCESS = 24;

type Begun = { readonly child: ChildProcess; readonly lines: AsyncIterator<string>; errors: string; kinds: number };

/** A Python process that quantizes kinds one after another, made anew where one ends it. */
export function startWorker(folder: string, options: { readonly showLog: boolean } = { showLog: false }) {
	let begun: Begun | null = null;

	async function begin(): Promise<Begun> {
		const child = spawn(PYTHON, [join(ROOT, "test/models/quantize_kinds.py"), folder], {
			cwd: ROOT,
			stdio: ["pipe", "pipe", "pipe"],
			env: {
				...process.env,
				OMP_NUM_THREADS: "1",
				OMP_WAIT_POLICY: "PASSIVE",
				HF_HUB_OFFLINE: "1",
				HF_HUB_DISABLE_PROGRESS_BARS: "1",
			},
		});
		const started: Begun = {
			child,
			lines: createInterface({ input: child.stdout })[Symbol.asyncIterator](),
			errors: "",
			kinds: 0,
		};
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			started.errors = (started.errors + text).slice(-8000);
			if (options.showLog) process.stderr.write(text);
		});
		child.stdin.on("error", () => undefined);
		await started.lines.next();
		begun = started;
		return started;
	}

	async function end(): Promise<void> {
		const child = begun?.child;
		begun = null;
		if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
		const ended = new Promise((resolve) => child.once("close", resolve));
		child.kill("SIGKILL");
		await ended;
	}

	/** What the process answers for `kind`, or the reason why it has none. */
	async function quantize(
		kind: string,
		containers: readonly string[],
	): Promise<
		{ readonly rows: readonly WorkerRow[]; readonly unmade: string | undefined } | { readonly ended: string }
	> {
		if (begun !== null && begun.kinds >= KINDS_A_PROCESS) await end();
		const worker = begun ?? (await begin());
		worker.kinds++;
		worker.errors = "";
		let why: string | null = null;
		const kill = (reason: string): void => {
			why ??= reason;
			worker.child.kill("SIGKILL");
		};
		const timer = setTimeout(() => kill(`it did not finish within ${KIND_MILLISECONDS / 1000} s`), KIND_MILLISECONDS);
		const watch = setInterval(async () => {
			if ((await residentBytes(worker.child.pid)) > KIND_BYTES) kill(`it took more than ${KIND_BYTES} bytes of memory`);
		}, 250);
		try {
			worker.child.stdin?.write(`${JSON.stringify({ kind, containers })}\n`);
			const line = await worker.lines.next();
			const answer = line.done === true ? null : Answer.parse(JSON.parse(line.value));
			if (answer !== null && "rows" in answer) return { rows: answer.rows, unmade: answer.unmade };
			await end();
			return { ended: why ?? `the process ended: ${worker.errors.trim().slice(-400)}` };
		} finally {
			clearTimeout(timer);
			clearInterval(watch);
		}
	}

	return { quantize, end };
}

async function residentBytes(pid: number | undefined): Promise<number> {
	const text = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
	return Number(/VmRSS:\s+(\d+) kB/.exec(text)?.[1] ?? 0) * 1024;
}
