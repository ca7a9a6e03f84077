import { systemClock } from "../clock.ts";
import { createLog, type Log } from "../log.ts";
import {
	type CliCommandName,
	commandText,
	findCommand,
	overviewText,
	type ParsedCommandLine,
	parseCommandLine,
} from "./command-line.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import type { Terminal } from "./terminal.ts";

type Line = ParsedCommandLine & { readonly ok: true };

/** What a command is run with; ports are `null` where none was given. */
type Call = {
	readonly line: Line;
	readonly terminal: Terminal;
	readonly port: number | null;
	readonly hubPort: number | null;
};

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

function help(line: Line, terminal: Terminal): ExitCode {
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

/** A port from the command line; `undefined` when it is none. */
function portOf(text: string | null): number | null | undefined {
	if (text === null) return null;
	return /^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}

/** Each command loads what it needs: "help" must not wait for a database. */
const COMMANDS: Readonly<Record<CliCommandName, (call: Call) => Promise<number>>> = {
	serve: async ({ line, terminal, port }) => {
		const { serve } = await import("./serve.ts");
		return await serve(
			{ configurationPath: line.text("config"), port, host: line.text("host"), json: line.flag("json") },
			terminal,
		);
	},
	"on-webhook": async ({ line, terminal }) => {
		const { onWebhook } = await import("./on-webhook.ts");
		const options = { configurationPath: line.text("config"), json: line.flag("json") };
		return await onWebhook(options, terminal, signalOfTheProcess(terminal));
	},
	demo: async ({ line, terminal, port, hubPort }) => {
		const { demo } = await import("./demo.ts");
		return await demo(
			{
				exit: line.flag("exit"),
				keep: line.flag("keep"),
				port,
				hubPort,
				dataDirectory: line.text("data-dir"),
				databaseUrl: line.text("database-url"),
				json: line.flag("json"),
			},
			terminal,
		);
	},
	"local-hub": async ({ line, terminal, port }) => {
		const { localHub } = await import("./local-hub.ts");
		return await localHub(
			{
				port,
				host: line.text("host"),
				dataDirectory: line.text("data-dir"),
				usersFile: line.text("users"),
				jobFolders: line.texts("jobs"),
				cdn: line.flag("cdn"),
				faults: line.texts("fault"),
				json: line.flag("json"),
			},
			terminal,
			signalOfTheProcess(terminal),
		);
	},
	quantize: async ({ line, terminal }) => {
		const { quantize } = await import("./quantize/quantize.ts");
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
				llamaCpp: line.text("llama-cpp"),
				configurationPath: line.text("config"),
				json: line.flag("json"),
			},
			{ terminal, signal: signalOfTheProcess(terminal), clock: systemClock, log: logToStderr() },
		);
	},
	plan: async ({ line, terminal }) => {
		const { plan } = await import("./plan.ts");
		return await plan(
			{
				repo: line.operands[0] ?? "",
				revision: line.text("revision"),
				variants: line.text("variants"),
				stages: line.flag("stages"),
				sequences: line.text("sequences"),
				length: line.text("length"),
				disk: line.text("disk"),
				configurationPath: line.text("config"),
				json: line.flag("json"),
			},
			terminal,
		);
	},
	approve: async ({ line, terminal }) => {
		const { approve } = await import("./approve.ts");
		return await approve(
			{ job: line.operands[0] ?? "", configurationPath: line.text("config"), json: line.flag("json") },
			terminal,
		);
	},
	verify: async ({ line, terminal }) => {
		const { verify, verifyAll } = await import("./verify.ts");
		const namespace = line.text("all");
		const target = line.operands[0];
		if ((namespace === null) === (target === undefined)) {
			return wrongUsage('"yaqa-bot verify" needs VARIANT, or --all NAMESPACE.', terminal, { command: "verify" });
		}
		if (namespace !== null) {
			return await verifyAll(
				{
					namespace,
					key: line.text("key"),
					kl: line.flag("kl"),
					configurationPath: line.text("config"),
					json: line.flag("json"),
				},
				{ terminal, signal: signalOfTheProcess(terminal) },
			);
		}
		return await verify(
			{
				target: target ?? "",
				revision: line.text("revision"),
				verification: line.text("verification"),
				key: line.text("key"),
				kl: line.flag("kl"),
				configurationPath: line.text("config"),
				json: line.flag("json"),
			},
			{ terminal, signal: signalOfTheProcess(terminal) },
		);
	},
	backup: async ({ line, terminal }) => {
		const { backup } = await import("./database-commands.ts");
		const file = line.operands[0] ?? "";
		return await backup({ file, configurationPath: line.text("config"), json: line.flag("json") }, terminal);
	},
	restore: async ({ line, terminal }) => {
		const { restoreBackup } = await import("./database-commands.ts");
		const file = line.operands[0] ?? "";
		return await restoreBackup({ file, configurationPath: line.text("config"), json: line.flag("json") }, terminal);
	},
	rebuild: async ({ line, terminal }) => {
		const { rebuildFromHub } = await import("./database-commands.ts");
		return await rebuildFromHub({ configurationPath: line.text("config"), json: line.flag("json") }, terminal);
	},
	"to-postgres": async ({ line, terminal }) => {
		const { toPostgres } = await import("./database-commands.ts");
		return await toPostgres({ configurationPath: line.text("config"), json: line.flag("json") }, terminal);
	},
	measure: async ({ line, terminal }) => {
		const { measure } = await import("./measure.ts");
		const [model = "", ...files] = line.operands;
		return await measure(
			{
				model,
				files,
				revision: line.text("revision"),
				texts: line.texts("text"),
				sequences: line.text("sequences"),
				length: line.text("length"),
				device: line.text("device"),
				configurationPath: line.text("config"),
				json: line.flag("json"),
			},
			{ terminal, signal: signalOfTheProcess(terminal) },
		);
	},
	config: async ({ line, terminal }) => {
		if (line.operands[0] !== "check") {
			return wrongUsage('"yaqa-bot config" knows "check".', terminal, { suggestion: "config check" });
		}
		const { checkConfiguration } = await import("./config-check.ts");
		return checkConfiguration({ path: line.text("config"), json: line.flag("json") }, terminal);
	},
	watch: async ({ line, terminal }) => {
		const { watch } = await import("./watch.ts");
		const [action = "", ...names] = line.operands;
		return await watch({ action, names, configurationPath: line.text("config"), json: line.flag("json") }, terminal);
	},
	doctor: async ({ line, terminal }) => {
		const { doctor } = await import("./doctor.ts");
		return await doctor({ configurationPath: line.text("config"), json: line.flag("json") }, terminal);
	},
	help: async ({ line, terminal }) => help(line, terminal),
};

/** Runs what the arguments ask for; the exit status. */
export async function runCommand(args: readonly string[], terminal: Terminal): Promise<number> {
	const line = parseCommandLine(args);
	if (!line.ok) {
		if (args.includes("--json")) {
			terminal.out(`${JSON.stringify({ ok: false, error: { message: line.message, suggestion: line.suggestion } })}\n`);
		}
		return wrongUsage(line.message, terminal, line);
	}
	if (line.flag("help")) return help(line, terminal);
	const port = portOf(line.text("port"));
	const hubPort = portOf(line.text("hub-port"));
	if (port === undefined || hubPort === undefined) {
		return wrongUsage("A port is a number from 0 to 65535.", terminal, { command: line.command.name });
	}
	return await COMMANDS[line.command.name]({ line, terminal, port, hubPort });
}
