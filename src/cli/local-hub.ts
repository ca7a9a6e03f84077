import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { systemClock } from "../clock.ts";
import { faultPlan } from "../local-hub/fault-flag.ts";
import { runLocalHub } from "../local-hub/run-local-hub.ts";
import { readUsersFile } from "../local-hub/users-file.ts";
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
		readonly usersFile: string | null;
		/** Where the programs are that jobs call. */
		readonly jobFolders: readonly string[];
		readonly faults: readonly string[];
		/** Large files come from another host. */
		readonly cdn: boolean;
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
	const refuse = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${message}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	let start: Pick<
		Parameters<typeof runLocalHub>[0],
		"users" | "organizations" | "oauthApps" | "legacyNames" | "faults" | "jobFolders"
	>;
	try {
		const folders = options.jobFolders.map((folder) => resolve(folder));
		const missing = folders.find((folder) => !existsSync(folder));
		if (missing !== undefined) throw new Error(`There is no folder ${missing} for --jobs.`);
		start = {
			...(options.usersFile === null ? {} : readUsersFile(options.usersFile)),
			faults: faultPlan(options.faults),
			jobFolders: folders.length === 0 ? null : folders,
		};
	} catch (error) {
		return refuse(error instanceof Error ? error.message : String(error), EXIT_CODES.usage.code);
	}
	try {
		await runLocalHub({
			...start,
			dataDirectory: resolve(options.dataDirectory ?? "data/local-hub"),
			port: options.port ?? DEFAULT_PORT,
			cdn: options.cdn,
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
		const remedy = taken ? " Choose another --port." : "";
		return refuse(`The local Hub cannot start: ${message}${remedy}`, EXIT_CODES.failed.code);
	}
}
