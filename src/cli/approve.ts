import { systemClock } from "../clock.ts";
import { loadConfiguration } from "../config/load.ts";
import { approveJob } from "../db/admission.ts";
import { DirectoryLockedError } from "../db/directory-lock.ts";
import { openDatabase } from "../db/open-database.ts";
import { silentLog } from "../log.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import type { Terminal } from "./terminal.ts";

/** `yaqa-bot approve`: lets a job run that costs more than may start by itself. The bot finds it within seconds. */
export async function approve(
	options: { readonly job: string; readonly configurationPath: string | null; readonly json: boolean },
	terminal: Terminal,
): Promise<ExitCode> {
	const end = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${message}\n`);
		if (options.json) {
			const ok = code === EXIT_CODES.ok.code;
			terminal.out(`${JSON.stringify(ok ? { ok, job: options.job } : { ok, error: { message } })}\n`);
		}
		return code;
	};
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) return end(loaded.problems.map(problemLine).join("\n"), EXIT_CODES.usage.code);
	if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(options.job)) {
		return end("JOB is a job's id, as its page shows it.", EXIT_CODES.usage.code);
	}
	const { configuration, secrets } = loaded;
	try {
		const database = await openDatabase({
			dataDirectory: configuration.database.dataDirectory,
			databaseUrl: secrets.databaseUrl,
			poolSize: 2,
			clock: systemClock,
			log: silentLog,
		});
		try {
			return (await approveJob(database.handle, options.job, systemClock.now()))
				? end("Approved.", EXIT_CODES.ok.code)
				: end("No job of this id waits.", EXIT_CODES.failed.code);
		} finally {
			await database.close();
		}
	} catch (error) {
		if (!(error instanceof DirectoryLockedError)) throw error;
		return end(
			`${error.message} The embedded database lets one program in: stop the bot, approve, and start it again; with PostgreSQL that is not needed.`,
			EXIT_CODES.failed.code,
		);
	}
}
