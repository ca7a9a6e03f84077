import type { Log } from "../log.ts";
import { isFinished, type JobEventRecord, type JobRecord } from "../records/job.ts";
import type { WebData } from "./data.ts";
import { foldEvents, NO_PROGRESS } from "./job-progress.ts";
import { type JobView, jobParts } from "./views/job-page.ts";

export type JobFeedOptions = {
	readonly data: WebData;
	readonly log: Log;
	readonly pollMilliseconds: number;
	readonly view: (job: JobRecord, progress: JobView["progress"]) => Promise<JobView>;
};

export type JobFeed = {
	readonly add: (watcher: Watcher) => void;
	readonly remove: (watcher: Watcher) => void;
};

const BATCH = 500;

function message(event: string, id: number, data: unknown): string {
	return `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** Somebody who follows a job. */
export type Watcher = {
	readonly asParts: boolean;
	readonly layers: boolean;
	/** The number of the last event that was sent or passed over. */
	sequence: number;
	/** Whether it has everything from before, and gets what comes from now on. */
	isCurrent: boolean;
	readonly sent: Map<string, string>;
	readonly send: (text: string) => boolean;
	readonly finish: () => void;
};

/**
 * Reads one job for everybody who follows it: however many they are, the database is asked once a turn, and the page's
 * parts are made once. `leave` is called when nobody is left. Long, since its functions share what was read last.
 */
export function createJobFeed(options: JobFeedOptions, first: JobRecord, leave: () => void): JobFeed {
	const { data, log, pollMilliseconds, view } = options;
	const watchers = new Set<Watcher>();
	const stop = new AbortController();
	let job = first;
	let sequence = 0;
	let progress = NO_PROGRESS;
	let parts: Readonly<Record<string, string>> | null = null;
	let seen = "";
	let hasEnded = false;

	function sendRows(watcher: Watcher, rows: readonly JobEventRecord[]): void {
		for (const row of rows) {
			if (row.sequence <= watcher.sequence) continue;
			watcher.sequence = row.sequence;
			if (watcher.asParts || (isLayer(row) && !watcher.layers)) continue;
			if (!watcher.send(message(row.kind, row.sequence, eventOf(row)))) return;
		}
	}

	function sendParts(watcher: Watcher): void {
		if (!watcher.asParts || parts === null) return;
		const changed = Object.entries(parts).filter(([id, markup]) => watcher.sent.get(id) !== markup);
		for (const [id, markup] of changed) watcher.sent.set(id, markup);
		if (changed.length > 0) watcher.send(message("parts", sequence, Object.fromEntries(changed)));
	}

	function sendEnd(watcher: Watcher): void {
		watcher.send(message("end", sequence, { state: job.state }));
		watcher.finish();
	}

	/** One look; `false`: there is nothing more to come. */
	async function turn(): Promise<boolean> {
		// The job is read before its events: a job that is seen to have ended has all its events by then.
		const current = await data.getJob(job.id);
		// It is no longer for these eyes.
		if (current === null) return false;
		job = current;
		for (let more = true; more; ) {
			const rows = await data.listJobEvents(job.id, sequence, BATCH);
			progress = foldEvents(progress, rows);
			sequence = rows.at(-1)?.sequence ?? sequence;
			for (const watcher of watchers) if (watcher.isCurrent) sendRows(watcher, rows);
			more = rows.length === BATCH;
		}
		const now = `${sequence} ${job.state} ${job.updatedAt.getTime()}`;
		const wantsParts = [...watchers].some((watcher) => watcher.asParts);
		if (wantsParts && (now !== seen || parts === null)) {
			parts = jobParts(await view(job, progress));
			seen = now;
		}
		for (const watcher of watchers) if (watcher.isCurrent) sendParts(watcher);
		return !isFinished(job.state);
	}

	async function follow(): Promise<void> {
		while (watchers.size > 0 && (await turn())) await pause(pollMilliseconds, stop.signal);
		// Somebody may have come to look at the page after the last turn had asked whether anybody does.
		if (parts === null && [...watchers].some((watcher) => watcher.asParts)) parts = jobParts(await view(job, progress));
		hasEnded = true;
		leave();
		for (const watcher of watchers) if (watcher.isCurrent) sendParts(watcher);
		for (const watcher of watchers) if (watcher.isCurrent) sendEnd(watcher);
	}

	/** What happened before somebody came, at the speed at which they read it. */
	async function catchUp(watcher: Watcher): Promise<void> {
		while (watchers.has(watcher)) {
			const rows = watcher.asParts ? [] : await data.listJobEvents(job.id, watcher.sequence, BATCH);
			sendRows(watcher, rows);
			if (rows.length > 0) continue;
			// Nothing may come up between this look and the next turn's that neither sends.
			if (!watcher.asParts && watcher.sequence < sequence && !hasEnded) continue;
			watcher.isCurrent = true;
			sendParts(watcher);
			if (hasEnded) sendEnd(watcher);
			return;
		}
	}

	let isFollowed = false;
	return {
		add(watcher: Watcher): void {
			watchers.add(watcher);
			const failed = (error: unknown): void => {
				log.error("A job's event stream broke", { job: job.id, error });
				for (const one of [...watchers]) one.finish();
			};
			if (!isFollowed) follow().catch(failed);
			isFollowed = true;
			catchUp(watcher).catch(failed);
		},
		remove(watcher: Watcher): void {
			if (!watchers.delete(watcher) || watchers.size > 0) return;
			stop.abort();
			leave();
		},
	};
}

function isLayer(row: JobEventRecord): boolean {
	const { body } = row;
	return (
		row.kind === "runner" && typeof body === "object" && body !== null && "event" in body && body.event === "layer"
	);
}

function eventOf(row: JobEventRecord): unknown {
	return { sequence: row.sequence, at: row.at.toISOString(), kind: row.kind, body: row.body };
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
	if (signal.aborted) return Promise.resolve();
	return new Promise((resolve) => {
		const done = (): void => {
			clearTimeout(timer);
			signal.removeEventListener("abort", done);
			resolve();
		};
		const timer = setTimeout(done, milliseconds);
		signal.addEventListener("abort", done);
	});
}
