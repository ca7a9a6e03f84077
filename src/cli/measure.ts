import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { systemClock } from "../clock.ts";
import { loadConfiguration } from "../config/load.ts";
import { runnerPython } from "../config/project-paths.ts";
import { RUNNER_EXIT_CODES } from "../protocol/runner-exit-codes.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { createProgressDisplay } from "./progress-display.ts";
import { obtainSource } from "./quantize/obtain-source.ts";
import { Stopped } from "./quantize/stopped.ts";
import { runRunnerOffline } from "./run-runner-offline.ts";
import { printable, type Terminal } from "./terminal.ts";

export type MeasureOptions = {
	readonly model: string;
	readonly files: readonly string[];
	readonly revision: string | null;
	readonly texts: readonly string[];
	readonly sequences: string | null;
	readonly length: string | null;
	readonly device: string | null;
	readonly configurationPath: string | null;
	readonly json: boolean;
};

/** `yaqa-bot measure`: KL, top-1, size and bits a weight of anybody's quantized files of a model. */
export async function measure(
	options: MeasureOptions,
	context: { readonly terminal: Terminal; readonly signal: AbortSignal },
): Promise<ExitCode> {
	const { terminal, signal } = context;
	const refuse = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${printable(message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	const absent = options.files.find((file) => !existsSync(file));
	if (absent !== undefined) return refuse(`There is no ${absent}.`, EXIT_CODES.usage.code);
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) return refuse(loaded.problems.map(problemLine).join("\n"), EXIT_CODES.usage.code);
	const { configuration, secrets } = loaded;
	const work = await mkdtemp(join(tmpdir(), "yaqa-measure-"));
	const display = createProgressDisplay(terminal, () => systemClock.now());
	try {
		const source = await obtainSource(options, { configuration, secrets, work, display, signal });
		display.step(null);
		display.close();
		const { numbers, problem } = numbersOf(options);
		if (problem !== null) return refuse(problem, EXIT_CODES.usage.code);
		const python = runnerPython(configuration);
		const called = [source.directory, ...options.files.map((file) => resolve(file))];
		const texts = options.texts.flatMap((text) => ["--text", textArgument(text)]);
		const json = options.json ? ["--json"] : [];
		const status = await runRunnerOffline(
			{
				program: [python, "-m", "yaqa_runner", "measure", ...called, ...texts, ...numbers, ...json],
				environment: { HOME: join(work, "home") },
				onOutput: (text) => terminal.out(printable(text)),
			},
			context,
		);
		return exitCodeOf(status);
	} catch (error) {
		if (error instanceof Stopped) return refuse(`${error.refusal.message} ${error.refusal.remedy}`, error.exit);
		throw error;
	} finally {
		display.close();
		await rm(work, { recursive: true, force: true });
	}
}

/** A text's path is looked for from here, not from the runner's folder; a domain may stand before it. */
function textArgument(text: string): string {
	const [, domain = "", path = text] = /^([A-Za-z0-9_-]+=)?(.+)$/s.exec(text) ?? [];
	return `${domain}${resolve(path)}`;
}

function numbersOf(options: MeasureOptions): { readonly numbers: readonly string[]; readonly problem: string | null } {
	const numbers: string[] = [];
	for (const [name, value] of [
		["sequences", options.sequences],
		["length", options.length],
	] as const) {
		if (value === null) continue;
		if (!/^[1-9]\d{0,6}$/.test(value))
			return { numbers, problem: `--${name} is a whole number above 0; not ${value}.` };
		numbers.push(`--${name}`, value);
	}
	if (options.device !== null) {
		if (!["auto", "cpu", "cuda"].includes(options.device)) {
			return { numbers, problem: `--device is auto, cpu or cuda; not ${options.device}.` };
		}
		numbers.push("--device", options.device);
	}
	return { numbers, problem: null };
}

function exitCodeOf(status: number | null): ExitCode {
	switch (status) {
		case 0:
			return EXIT_CODES.ok.code;
		case null:
		case RUNNER_EXIT_CODES.interrupted:
			return EXIT_CODES.interrupted.code;
		case RUNNER_EXIT_CODES["invalid-spec"]:
			return EXIT_CODES.usage.code;
		case RUNNER_EXIT_CODES["source-refused"]:
			return EXIT_CODES.refused.code;
		default:
			return EXIT_CODES.failed.code;
	}
}
