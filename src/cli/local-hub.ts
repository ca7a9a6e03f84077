import { resolve } from "node:path";
import { systemClock } from "../clock.ts";
import { runLocalHub } from "../local-hub/run-local-hub.ts";
import { createLog } from "../log.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import type { Terminal } from "./terminal.ts";

const DEFAULT_PORT = 7861;

/** `yaqa-bot local-hub`. With `--json` the one line of stdout comes when the Hub listens. */
export async function localHub(
	options: {
		readonly port: number | null;
		readonly host: string | null;
		readonly dataDirectory: string | null;
		readonly json: boolean;
	},
	terminal: Terminal,
	signal: AbortSignal,
): Promise<ExitCode> {
	const log = createLog({
		level: "warn",
		write: (line) => terminal.err(`${line}\n`),
		now: () => systemClock.now(),
	});
	try {
		await runLocalHub({
			dataDirectory: resolve(options.dataDirectory ?? "data/local-hub"),
			port: options.port ?? DEFAULT_PORT,
			...(options.host === null ? {} : { host: options.host }),
			log,
			print: (line) => (options.json ? terminal.err(`${line}\n`) : terminal.out(`${line}\n`)),
			signal,
			onStarted: (hub) => {
				if (options.json) terminal.out(`${JSON.stringify({ ok: true, url: hub.url })}\n`);
			},
		});
		return EXIT_CODES.ok.code;
	} catch (error) {
		const message = error instanceof Error ? error.message : String(error);
		const taken = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
		terminal.err(`The local Hub cannot start: ${message}${taken ? " Choose another --port." : ""}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return EXIT_CODES.failed.code;
	}
}
