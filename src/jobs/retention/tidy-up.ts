import { basename, join } from "node:path";
import type { Configuration } from "../../config/schema.ts";
import { getJob } from "../../db/jobs.ts";
import {
	countKeptRows,
	hasUnfinishedJob,
	isPrivateSource,
	listPrivateCommits,
	listSketchFoldersInUse,
	listUnfinishedCommits,
	pruneDeliveries,
	pruneLeftovers,
	pruneRunnerEvents,
} from "../../db/retention.ts";
import { freeBytes } from "../../disk-full.ts";
import { parseAttempt } from "../../records/attempt.ts";
import { isFinished, type JobRecord } from "../../records/job.ts";
import { type JobsContext, later } from "../context.ts";
import { localRunnerFolders, workFolders } from "../work-folders.ts";
import { type KeptEntry, listKept, removeUnlessNeeded } from "./kept-folder.ts";

const GIGABYTE = 1e9;
const DAY_SECONDS = 86_400;
/** The Hub and GitHub are looked over for a day back: a comment or push that is met again is known by its delivery. */
const KEEP_DELIVERIES_SECONDS = 2 * DAY_SECONDS;
/** Files of an attempt whose job ended elsewhere; on this machine its clean-up takes them. */
const KEEP_WORK_SECONDS = DAY_SECONDS;

const KEPT_FOLDERS = ["sources", "sketches", "logs", "work"] as const;
type KeptFolder = (typeof KEPT_FOLDERS)[number];
type KeptRows = "deliveries" | "events";
export type Kept = KeptFolder | KeptRows;

/** What is kept after a look over it, and what went. */
export type TidyReport = Readonly<
	Record<KeptFolder, { readonly entries: number; readonly bytes: number; readonly removed: number }> &
		Record<KeptRows, { readonly entries: number; readonly removed: number }>
>;

type FolderRules = {
	readonly folder: string;
	/** May not go now, however old. */
	isNeeded(entry: KeptEntry): Promise<boolean>;
	/** Goes at once if it is not needed, however new. */
	isOver(entry: KeptEntry): boolean;
	readonly seconds: number;
	readonly bytes: number;
	/** Whether it goes for the sake of free space on the disk. */
	readonly isSpare: boolean;
};

/** Deletes what is over, too old or too much, the least recently used first. */
async function tidyFolder(
	context: JobsContext,
	rules: FolderRules,
): Promise<{ readonly entries: number; readonly bytes: number; readonly removed: number }> {
	const { clock, log, configuration } = context;
	const { dataDirectory } = configuration.database;
	const wanted = configuration.retention.freeGigabytes * GIGABYTE;
	const oldest = later(clock.now(), -rules.seconds).getTime();
	const entries = await listKept(rules.folder);
	let bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
	let removed = 0;
	for (const entry of entries) {
		const isFull = rules.isSpare && freeBytes(dataDirectory) < wanted;
		const goes =
			entry.isDoomed || rules.isOver(entry) || entry.usedAt.getTime() < oldest || bytes > rules.bytes || isFull;
		if (!goes) continue;
		try {
			const isGone = await removeUnlessNeeded(entry.path, async () => !entry.isDoomed && (await rules.isNeeded(entry)));
			if (!isGone) continue;
			bytes -= entry.bytes;
			removed++;
		} catch (error) {
			log.warn("What is no longer needed could not be deleted", { path: entry.path, error });
		}
	}
	return { entries: entries.length - removed, bytes, removed };
}

async function tidySources(context: JobsContext): Promise<TidyReport["sources"]> {
	const { database, configuration } = context;
	const { dataDirectory } = configuration.database;
	const { days, gigabytes } = configuration.retention.sources;
	const folders = workFolders(dataDirectory);
	const named = async (list: typeof listUnfinishedCommits) =>
		new Map((await list(database.handle)).map((commit) => [basename(folders.source(commit.repo, commit.sha)), commit]));
	const inUse = await named(listUnfinishedCommits);
	const closed = await named(listPrivateCommits);
	return await tidyFolder(context, {
		folder: join(dataDirectory, "sources"),
		// Asked again: a job may have been planned since the look at the folder began.
		isNeeded: async ({ name }) => inUse.has(name) || (await named(listUnfinishedCommits)).has(name),
		isOver: ({ name }) => closed.has(name),
		seconds: days * DAY_SECONDS,
		bytes: gigabytes * GIGABYTE,
		isSpare: true,
	});
}

async function tidySketches(context: JobsContext): Promise<TidyReport["sketches"]> {
	const { database, configuration } = context;
	const { days, gigabytes } = configuration.retention.sketches;
	return await tidyFolder(context, {
		folder: join(configuration.database.dataDirectory, "sketches"),
		isNeeded: async ({ path }) => (await listSketchFoldersInUse(database.handle)).includes(path),
		isOver: () => false,
		seconds: days * DAY_SECONDS,
		bytes: gigabytes * GIGABYTE,
		isSpare: true,
	});
}

async function tidyLogs(context: JobsContext): Promise<TidyReport["logs"]> {
	const { configuration } = context;
	const { days, gigabytes } = configuration.retention.logs;
	return await tidyFolder(context, {
		folder: localRunnerFolders(configuration.database.dataDirectory).logsDirectory,
		isNeeded: async () => false,
		isOver: () => false,
		seconds: days * DAY_SECONDS,
		bytes: gigabytes * GIGABYTE,
		isSpare: false,
	});
}

/** Attempts' own files go with their job's clean-up, which another machine may have done. */
async function tidyWork(context: JobsContext): Promise<TidyReport["work"]> {
	const { database, configuration } = context;
	return await tidyFolder(context, {
		folder: join(configuration.database.dataDirectory, "work"),
		isNeeded: async ({ name }) => {
			const attempt = parseAttempt(name);
			const job = attempt === null ? null : await getJob(database.handle, attempt.job);
			return job !== null && !isFinished(job.state) && job.fence === attempt?.fence;
		},
		isOver: () => false,
		seconds: KEEP_WORK_SECONDS,
		bytes: Number.POSITIVE_INFINITY,
		isSpare: false,
	});
}

async function tidyRows(
	context: JobsContext,
	{ deliveries, events }: Configuration["retention"],
): Promise<Pick<TidyReport, KeptRows>> {
	const { handle } = context.database;
	const now = context.clock.now();
	const removedDeliveries = await pruneDeliveries(handle, {
		before: later(now, -deliveries.days * DAY_SECONDS),
		rows: deliveries.rows,
		floor: later(now, -KEEP_DELIVERIES_SECONDS),
	});
	const removedEvents = await pruneRunnerEvents(handle, {
		before: later(now, -events.days * DAY_SECONDS),
		rows: events.rows,
	});
	// Answers are counted over a day.
	await pruneLeftovers(handle, later(now, -2 * DAY_SECONDS));
	const kept = await countKeptRows(handle);
	return {
		deliveries: { entries: kept.deliveries, removed: removedDeliveries },
		events: { entries: kept.events, removed: removedEvents },
	};
}

/** Deletes what `retention` says is kept no longer, on this machine and in the database. Safe to call at any time. */
export async function tidyUp(context: JobsContext): Promise<TidyReport> {
	const report: TidyReport = {
		...(await tidyRows(context, context.configuration.retention)),
		logs: await tidyLogs(context),
		work: await tidyWork(context),
		// The easiest to get again goes first where the disk is nearly full.
		sources: await tidySources(context),
		sketches: await tidySketches(context),
	};
	const removed = Object.fromEntries(Object.entries(report).map(([what, { removed: count }]) => [what, count]));
	if (Object.values(removed).some((count) => count > 0)) context.log.info("Deleted what is kept no longer", removed);
	return report;
}

/** The snapshot of a private source goes with the last job on it. */
export async function removePrivateSource(context: JobsContext, job: JobRecord): Promise<void> {
	const { database, configuration } = context;
	const { handle } = database;
	const commit = { repo: job.sourceRepo, sha: job.sourceSha };
	if (!(await isPrivateSource(handle, commit.repo))) return;
	const folder = workFolders(configuration.database.dataDirectory).source(commit.repo, commit.sha);
	await removeUnlessNeeded(folder, () => hasUnfinishedJob(handle, commit));
}
