import { pathToFileURL } from "node:url";
import {
	commandText,
	findCommand,
	overviewText,
	type ParsedCommandLine,
	parseCommandLine,
} from "./cli/command-line.ts";
import { EXIT_CODES, type ExitCode } from "./cli/exit-codes.ts";
import { printable, type Terminal } from "./cli/terminal.ts";
import { systemClock } from "./clock.ts";
import { assertNever, PermanentError, RetryableError } from "./errors.ts";
import { createLog, type Log } from "./log.ts";

function createTerminal(): Terminal {
	return {
		out: (text) => void process.stdout.write(text),
		err: (text) => void process.stderr.write(text),
		isScreen: process.stderr.isTTY === true,
		columns: () => process.stderr.columns ?? 80,
	};
}

function logToStderr(): Log {
	return createLog({
		level: "warn",
		write: (line) => void process.stderr.write(`${line}\n`),
		now: () => systemClock.now(),
	});
}

/** Ends the command's work at the first signal and the program at the second. */
function signalOfTheProcess(terminal: Terminal): AbortSignal {
	const controller = new AbortController();
	let signals = 0;
	for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
		process.on(name, () => {
			signals++;
			if (signals === 1) {
				terminal.err("\nStopping; once more stops at once.\n");
				controller.abort(new Error(`Stopped by ${name}.`));
			} else process.exit(EXIT_CODES.interrupted.code);
		});
	}
	return controller.signal;
}

function help(line: ParsedCommandLine & { readonly ok: true }, terminal: Terminal): ExitCode {
	const name = line.command.name === "help" ? line.operands[0] : line.command.name;
	const command = name === undefined ? null : findCommand(name);
	if (name !== undefined && command === null)
		return wrongUsage(`There is no command "${name.slice(0, 60)}".`, terminal);
	const text = command === null ? overviewText() : commandText(command);
	terminal.out(line.flag("json") ? `${JSON.stringify({ ok: true, text })}\n` : `${text}\n`);
	return EXIT_CODES.ok.code;
}

function wrongUsage(
	message: string,
	terminal: Terminal,
	more: { readonly suggestion?: string | null; readonly command?: string | null } = {},
): ExitCode {
	const { suggestion = null, command = null } = more;
	terminal.err(`${message}${suggestion === null ? "" : ` Did you mean "${suggestion}"?`}\n`);
	terminal.err(
		command === null ? '"yaqa-bot help" lists the commands.\n' : `"yaqa-bot help ${command}" shows how it is used.\n`,
	);
	return EXIT_CODES.usage.code;
}

/** What happened outside is told in a sentence; what nobody expected, with where it happened. */
function failureText(error: unknown): { readonly message: string; readonly detail: string } {
	if (error instanceof PermanentError) {
		return { message: `${error.refusal.message} ${error.refusal.remedy}`, detail: "" };
	}
	if (error instanceof RetryableError) return { message: error.message, detail: "Another try may succeed.\n" };
	const message = error instanceof Error ? error.message : String(error);
	const where = error instanceof Error ? (error.stack ?? "").split("\n").slice(1).join("\n") : "";
	return { message, detail: `${where}\nThis is a bug in yaqa-bot; please report it with these lines.\n` };
}

/** A port from the command line; `undefined` when it is none. */
function portOf(text: string | null): number | null | undefined {
	if (text === null) return null;
	return /^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}

async function runCommand(args: readonly string[], terminal: Terminal): Promise<number> {
	const line = parseCommandLine(args);
	if (!line.ok) {
		if (args.includes("--json")) {
			terminal.out(`${JSON.stringify({ ok: false, error: { message: line.message, suggestion: line.suggestion } })}\n`);
		}
		return wrongUsage(line.message, terminal, line);
	}
	if (line.command.name === "help" || line.flag("help")) return help(line, terminal);
	const json = line.flag("json");
	const configurationPath = line.text("config");
	const port = portOf(line.text("port"));
	const hubPort = portOf(line.text("hub-port"));
	if (port === undefined || hubPort === undefined) {
		return wrongUsage("A port is a number from 0 to 65535.", terminal, { command: line.command.name });
	}
	// Each command loads what it needs: "help" must not wait for a database.
	switch (line.command.name) {
		case "serve": {
			const { serve } = await import("./cli/serve.ts");
			return await serve({ configurationPath, port, host: line.text("host"), json }, terminal);
		}
		case "demo": {
			const { demo } = await import("./cli/demo.ts");
			return await demo(
				{
					exit: line.flag("exit"),
					keep: line.flag("keep"),
					port,
					hubPort,
					dataDirectory: line.text("data-dir"),
					databaseUrl: line.text("database-url"),
					json,
				},
				terminal,
			);
		}
		case "local-hub": {
			const { localHub } = await import("./cli/local-hub.ts");
			return await localHub(
				{ port, host: line.text("host"), dataDirectory: line.text("data-dir"), json },
				terminal,
				signalOfTheProcess(terminal),
			);
		}
		case "quantize": {
			const { quantize } = await import("./cli/quantize.ts");
			return await quantize(
				{
					model: line.operands[0] ?? "",
					recipes: line.texts("recipe"),
					output: line.text("output"),
					revision: line.text("revision"),
					calibration: line.texts("calibration"),
					sequences: line.text("sequences"),
					length: line.text("length"),
					device: line.text("device"),
					configurationPath,
					json,
				},
				{ terminal, signal: signalOfTheProcess(terminal), clock: systemClock, log: logToStderr() },
			);
		}
		case "plan": {
			const { plan } = await import("./cli/plan.ts");
			return await plan(
				{
					repo: line.operands[0] ?? "",
					revision: line.text("revision"),
					variants: line.text("variants"),
					configurationPath,
					json,
				},
				terminal,
			);
		}
		case "approve": {
			const { approve } = await import("./cli/approve.ts");
			return await approve({ job: line.operands[0] ?? "", configurationPath, json }, terminal);
		}
		case "verify": {
			const { verify } = await import("./cli/verify.ts");
			return await verify(
				{
					target: line.operands[0] ?? "",
					revision: line.text("revision"),
					verification: line.text("verification"),
					configurationPath,
					json,
				},
				{ terminal, signal: signalOfTheProcess(terminal) },
			);
		}
		case "config": {
			if (line.operands[0] !== "check") {
				return wrongUsage('"yaqa-bot config" knows "check".', terminal, { suggestion: "config check" });
			}
			const { checkConfiguration } = await import("./cli/config-check.ts");
			return checkConfiguration({ path: configurationPath, json }, terminal);
		}
		case "watch": {
			const { watch } = await import("./cli/watch.ts");
			const [action = "", ...names] = line.operands;
			return await watch({ action, names, configurationPath, json }, terminal);
		}
		case "doctor": {
			const { doctor } = await import("./cli/doctor.ts");
			return await doctor({ configurationPath, json }, terminal);
		}
		default:
			return assertNever(line.command.name);
	}
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
	const terminal = createTerminal();
	const args = process.argv.slice(2);
	try {
		process.exitCode = await runCommand(args, terminal);
	} catch (error) {
		const { message, detail } = failureText(error);
		terminal.err(`${printable(message)}\n${detail}`);
		if (args.includes("--json")) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		process.exitCode = EXIT_CODES.failed.code;
	}
}
