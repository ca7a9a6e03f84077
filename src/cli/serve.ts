import { systemClock } from "../clock.ts";
import { loadConfiguration } from "../config/load.ts";
import type { ConfigurationInput } from "../config/schema.ts";
import type { Database } from "../db/database.ts";
import { DirectoryLockedError } from "../db/directory-lock.ts";
import { openDatabase } from "../db/open-database.ts";
import { createLog, type Log } from "../log.ts";
import { runServer } from "../server/run-server.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import type { Terminal } from "./terminal.ts";

export type ServeOptions = {
	readonly configurationPath: string | null;
	readonly port: number | null;
	readonly host: string | null;
	readonly json: boolean;
};

/** Aborts at the first SIGTERM or SIGINT; the second one ends the process without waiting for anything. */
function onSignals(log: Log): { readonly signal: AbortSignal; readonly release: () => void } {
	const controller = new AbortController();
	const names = ["SIGTERM", "SIGINT"] as const;
	const handlers = names.map((name) => {
		const handler = (): void => {
			if (!controller.signal.aborted) controller.abort(name);
			else {
				log.warn("Stopping at once", { signal: name });
				process.exit(EXIT_CODES.interrupted.code);
			}
		};
		process.on(name, handler);
		return { name, handler };
	});
	return {
		signal: controller.signal,
		release: () => {
			for (const { name, handler } of handlers) process.off(name, handler);
		},
	};
}

function textOf(error: unknown): string {
	return error instanceof Error ? error.message : String(error);
}

/** `yaqa-bot serve`: webhooks, queue and pages until a signal comes. */
export async function serve(options: ServeOptions, terminal: Terminal): Promise<ExitCode> {
	const overrides: ConfigurationInput = {
		server: {
			...(options.port === null ? {} : { port: options.port }),
			...(options.host === null ? {} : { host: options.host }),
		},
	};
	const loaded = loadConfiguration({
		overrides,
		...(options.configurationPath === null ? {} : { path: options.configurationPath }),
	});
	const refuse = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${message}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	if (!loaded.ok) return refuse(loaded.problems.map(problemLine).join("\n"), EXIT_CODES.usage.code);
	const { configuration, secrets } = loaded;
	const { publisherToken } = secrets;
	if (publisherToken === null) {
		return refuse(
			"Set YAQA_BOT_HUB_TOKEN (or HF_TOKEN) to a token of the bot's account that may write to its namespace. `yaqa-bot doctor` checks it.",
			EXIT_CODES.usage.code,
		);
	}
	const log = createLog({
		level: configuration.log.level,
		write: (line) => terminal.err(`${line}\n`),
		now: () => systemClock.now(),
	});
	const { signal, release } = onSignals(log);
	try {
		let database: Database;
		try {
			database = await openDatabase({
				dataDirectory: configuration.database.dataDirectory,
				databaseUrl: secrets.databaseUrl,
				poolSize: configuration.database.poolSize,
				clock: systemClock,
				log,
			});
		} catch (error) {
			const message = textOf(error);
			const said = error instanceof DirectoryLockedError ? message : `The database cannot be opened: ${message}`;
			return refuse(said, EXIT_CODES.failed.code);
		}
		await runServer({
			settings: { configuration, secrets, publisherToken },
			database,
			log,
			signal,
			onUp: (address) => {
				if (options.json) terminal.out(`${JSON.stringify({ ok: true, address })}\n`);
			},
			onDeadline: () => process.exit(EXIT_CODES.failed.code),
		});
		return EXIT_CODES.ok.code;
	} catch (error) {
		const taken = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
		return refuse(
			`The bot cannot start: ${textOf(error)}${taken ? " Choose another port with --port or server.port." : ""}`,
			EXIT_CODES.failed.code,
		);
	} finally {
		release();
	}
}
