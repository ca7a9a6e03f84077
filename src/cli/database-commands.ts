import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { systemClock } from "../clock.ts";
import { type LoadedConfiguration, loadConfiguration } from "../config/load.ts";
import { backUp, restore } from "../db/backup-file.ts";
import type { Database } from "../db/database.ts";
import { DirectoryLockedError } from "../db/directory-lock.ts";
import { isUnused, RestoreError, type RowCounts } from "../db/dump.ts";
import { moveToPostgres } from "../db/move-to-postgres.ts";
import { openDatabase } from "../db/open-database.ts";
import { rebuild } from "../jobs/rebuild.ts";
import { silentLog } from "../log.ts";
import { listPublished } from "../publish/list-published.ts";
import { publisherAccess, readAccess } from "../server/hub-access.ts";
import { inspectSource } from "../verify/inspect-source.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { firstLine } from "./finding.ts";
import { printable, type Terminal } from "./terminal.ts";

type DatabaseCommandOptions = { readonly configurationPath: string | null; readonly json: boolean };
type Loaded = LoadedConfiguration & { readonly ok: true };

async function openConfigured({ configuration, secrets }: Loaded, embedded = false): Promise<Database> {
	return await openDatabase({
		dataDirectory: configuration.database.dataDirectory,
		databaseUrl: embedded ? null : secrets.databaseUrl,
		poolSize: 2,
		clock: systemClock,
		log: silentLog,
	});
}

function countsText(counts: RowCounts): string {
	return Object.entries(counts)
		.filter(([, count]) => count > 0)
		.map(([table, count]) => `${count} ${table}`)
		.join(", ");
}

/** Runs one of the commands below, and tells its end in words and, if asked, in JSON. */
async function told(
	options: DatabaseCommandOptions,
	terminal: Terminal,
	work: (loaded: Loaded) => Promise<{ readonly message: string; readonly counts: RowCounts }>,
): Promise<ExitCode> {
	const fail = (message: string, code: ExitCode): ExitCode => {
		terminal.err(`${printable(message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: false, error: { message } })}\n`);
		return code;
	};
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	if (!loaded.ok) return fail(loaded.problems.map(problemLine).join("\n"), EXIT_CODES.usage.code);
	try {
		const { message, counts } = await work(loaded);
		terminal.err(`${printable(message)}\n`);
		if (options.json) terminal.out(`${JSON.stringify({ ok: true, rows: counts })}\n`);
		return EXIT_CODES.ok.code;
	} catch (error) {
		if (error instanceof DirectoryLockedError) {
			return fail(`${error.message} The embedded database lets one program in.`, EXIT_CODES.failed.code);
		}
		if (error instanceof RestoreError) return fail(error.message, EXIT_CODES.failed.code);
		return fail(`The database could not be copied: ${firstLine(error)}`, EXIT_CODES.failed.code);
	}
}

/** `yaqa-bot backup`: the whole database as one file, as of one moment. */
export async function backup(
	options: DatabaseCommandOptions & { readonly file: string },
	terminal: Terminal,
): Promise<ExitCode> {
	return await told(options, terminal, async (loaded) => {
		const path = resolve(options.file);
		if (existsSync(path)) throw new RestoreError(`${path} is there already.`);
		const database = await openConfigured(loaded);
		try {
			const counts = await backUp(database, path, systemClock.now());
			return { message: `Written to ${path}: ${countsText(counts)}.`, counts };
		} finally {
			await database.close();
		}
	});
}

/** `yaqa-bot restore`: a backup into an empty database. */
export async function restoreBackup(
	options: DatabaseCommandOptions & { readonly file: string },
	terminal: Terminal,
): Promise<ExitCode> {
	return await told(options, terminal, async (loaded) => {
		const path = resolve(options.file);
		if (!existsSync(path)) throw new RestoreError(`There is no file ${path}.`);
		const database = await openConfigured(loaded);
		try {
			const counts = await restore(database, path, systemClock.now());
			return { message: `Restored: ${countsText(counts)}.`, counts };
		} finally {
			await database.close();
		}
	});
}

/** `yaqa-bot rebuild`: the database anew from what the Hub has of the bot's namespace. */
export async function rebuildFromHub(options: DatabaseCommandOptions, terminal: Terminal): Promise<ExitCode> {
	return await told(options, terminal, async (loaded) => {
		const { configuration, secrets } = loaded;
		const database = await openConfigured(loaded);
		try {
			if (!(await isUnused(database.handle))) {
				throw new RestoreError("The database is in use already; it is rebuilt into an empty one.");
			}
			const hub = publisherAccess(configuration, secrets);
			const limits = { maximumWeightBytes: Number.MAX_SAFE_INTEGER };
			const report = await rebuild({
				database,
				clock: systemClock,
				published: listPublished({ ...hub, namespace: configuration.hub.namespace }),
				inspectSource: (source) => inspectSource({ ...readAccess(configuration, secrets), ...source, limits }),
				onSource: (source) => terminal.err(`look at ${printable(source)} …\n`),
			});
			for (const source of report.lost) terminal.err(`${printable(source)} can no longer be read.\n`);
			for (const one of report.left) terminal.err(`This version does not know ${printable(one)}.\n`);
			const { repos, variants } = report;
			return {
				message: `Found ${variants} variants in ${repos} repos of ${configuration.hub.namespace}.`,
				counts: { repos, variants, lost: report.lost.length, left: report.left.length },
			};
		} finally {
			await database.close();
		}
	});
}

/** `yaqa-bot to-postgres`: what the embedded database holds, into the PostgreSQL of DATABASE_URL. */
export async function toPostgres(options: DatabaseCommandOptions, terminal: Terminal): Promise<ExitCode> {
	return await told(options, terminal, async (loaded) => {
		const { dataDirectory } = loaded.configuration.database;
		if (loaded.secrets.databaseUrl === null) {
			throw new RestoreError("Set DATABASE_URL to the PostgreSQL that the rows are to go to.");
		}
		const from = await openConfigured(loaded, true);
		try {
			const to = await openConfigured(loaded);
			try {
				const counts = await moveToPostgres({ from, to, dataDirectory, now: systemClock.now() });
				return {
					message: `Moved: ${countsText(counts)}. From now on the bot is started with this DATABASE_URL.`,
					counts,
				};
			} finally {
				await to.close();
			}
		} finally {
			await from.close();
		}
	});
}
