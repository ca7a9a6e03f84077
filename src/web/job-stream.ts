import type { Request, Response } from "express";
import type { Log } from "../log.ts";
import { isFinished, type JobEventRecord, type JobRecord } from "../records/job.ts";
import type { WebData } from "./data.ts";
import { foldEvents, NO_PROGRESS } from "./job-progress.ts";
import { type JobView, jobParts } from "./views/job-page.ts";

type JobStreamOptions = {
	readonly data: WebData;
	readonly log: Log;
	readonly maximumClients: number;
	/** Streams to one address. */
	readonly maximumPerAddress: number;
	readonly pollMilliseconds: number;
	readonly keepAliveMilliseconds: number;
	readonly view: (job: JobRecord, progress: JobView["progress"]) => Promise<JobView>;
};

export type JobStreams = {
	readonly handle: (request: Request, response: Response, job: JobRecord) => void;
	readonly clients: () => number;
	/** Ends every stream, so that the server can close. Clients come back by themselves. */
	readonly close: () => void;
};

const BATCH = 500;
/** What may wait for a client that reads slowly; one that falls further behind comes back with the last number it has. */
const MAXIMUM_WAITING_BYTES = 1024 * 1024;

/** `null`: not a number that an event of ours could have. */
function lastEventId(request: Request): number | null {
	const text =
		request.get("last-event-id") ?? (typeof request.query["after"] === "string" ? request.query["after"] : "");
	if (text === "") return 0;
	return /^\d{1,15}$/.test(text) ? Number(text) : null;
}

function message(event: string, id: number, data: unknown): string {
	return `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** Somebody who follows a job. */
type Watcher = {
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
 * parts are made once. `leave` is called when nobody is left.
 */
function createJobFeed(options: JobStreamOptions, first: JobRecord, leave: () => void) {
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
			// Nothing may be told between this look and the next turn's that neither sends.
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

/**
 * Server-sent events of a job. As they stand: every row of the job as `state` or `runner`, its number as the `id`, so
 * that `Last-Event-ID` resumes without a gap; the evidence of single layers, thousands of rows, only with `?layers=1`.
 * With `?view=parts`: the changed parts of the job page. Both end with `end` once the job has; a client that comes back
 * after that gets 204, which stops `EventSource`.
 */
export function createJobStreams(options: JobStreamOptions): JobStreams {
	const { data, log, maximumClients, maximumPerAddress, keepAliveMilliseconds } = options;
	const open = new Set<() => void>();
	const perAddress = new Map<string, number>();
	const feeds = new Map<string, ReturnType<typeof createJobFeed>>();

	function feedOf(job: JobRecord): ReturnType<typeof createJobFeed> {
		const known = feeds.get(job.id);
		if (known !== undefined) return known;
		const feed = createJobFeed(options, job, () => {
			if (feeds.get(job.id) === feed) feeds.delete(job.id);
		});
		feeds.set(job.id, feed);
		return feed;
	}

	function handle(request: Request, response: Response, job: JobRecord): void {
		const after = lastEventId(request);
		if (after === null) {
			response.status(400).json({ error: "Last-Event-ID is the number of an event." });
			return;
		}
		const address = request.ip ?? "unknown";
		const own = perAddress.get(address) ?? 0;
		if (open.size >= maximumClients || own >= maximumPerAddress) {
			const who = own >= maximumPerAddress ? "You follow" : "Too many people follow";
			response
				.set("Retry-After", "15")
				.status(503)
				.json({ error: `${who} ${own >= maximumPerAddress ? "too many jobs" : "jobs"} just now.` });
			return;
		}
		perAddress.set(address, own + 1);
		const asParts = request.query["view"] === "parts";
		const finish = (): void => {
			if (!open.delete(finish)) return;
			clearInterval(keepAlive);
			const left = (perAddress.get(address) ?? 1) - 1;
			if (left > 0) perAddress.set(address, left);
			else perAddress.delete(address);
			feed.remove(watcher);
			response.end();
		};
		const send = (text: string): boolean => {
			if (!open.has(finish)) return false;
			response.write(text);
			if (response.writableLength <= MAXIMUM_WAITING_BYTES) return true;
			finish();
			// What waits for somebody who does not read is not kept for them.
			response.destroy();
			return false;
		};
		const watcher: Watcher = {
			asParts,
			layers: request.query["layers"] === "1",
			sequence: asParts ? 0 : after,
			isCurrent: false,
			sent: new Map(),
			send,
			finish,
		};
		const feed = feedOf(job);
		const keepAlive = setInterval(() => send(": still here\n\n"), keepAliveMilliseconds);
		keepAlive.unref();
		open.add(finish);
		response.on("close", finish);
		response.status(200).set({
			"Content-Type": "text/event-stream; charset=utf-8",
			"Cache-Control": "no-store",
			"X-Accel-Buffering": "no",
		});
		response.flushHeaders();
		send("retry: 2000\n\n");
		feed.add(watcher);
	}

	async function respond(request: Request, response: Response, job: JobRecord): Promise<void> {
		const after = lastEventId(request);
		if (after !== null && after > 0 && isFinished(job.state)) {
			const rows = await data.listJobEvents(job.id, after, 1);
			if (rows.length === 0) {
				response.status(204).end();
				return;
			}
		}
		handle(request, response, job);
	}

	return {
		handle: (request, response, job) => {
			respond(request, response, job).catch((error: unknown) => {
				log.error("A job's event stream could not start", { job: job.id, error });
				if (response.headersSent) response.end();
				else response.status(500).json({ error: "The stream could not start." });
			});
		},
		clients: () => open.size,
		close: () => {
			for (const finish of open) finish();
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
