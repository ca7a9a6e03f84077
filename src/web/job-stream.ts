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

/**
 * Server-sent events of a job. As they stand: every row of the job as `state` or `runner`, its number as the `id`, so
 * that `Last-Event-ID` resumes without a gap. With `?view=parts`: the changed parts of the job page.
 * Both end with `end` once the job has; a client that comes back after that gets 204, which stops `EventSource`.
 */
export function createJobStreams(options: JobStreamOptions): JobStreams {
	const { data, log, maximumClients, pollMilliseconds, keepAliveMilliseconds } = options;
	const open = new Set<() => void>();

	async function follow(
		job: JobRecord,
		asParts: boolean,
		after: number,
		send: (text: string) => boolean,
		signal: AbortSignal,
	) {
		let sequence = asParts ? 0 : after;
		let progress = NO_PROGRESS;
		let sent: Readonly<Record<string, string>> = {};
		for (;;) {
			// The job is read before its events: a job that is seen to have ended has all its events by then.
			const current = (await data.getJob(job.id)) ?? job;
			for (let rows = await batch(); rows.length > 0; rows = rows.length < BATCH ? [] : await batch()) {
				if (asParts) progress = foldEvents(progress, rows);
				else for (const row of rows) send(message(row.kind, row.sequence, eventOf(row)));
			}
			if (signal.aborted) return;
			if (asParts) {
				const parts = jobParts(await options.view(current, progress));
				const changed = Object.fromEntries(Object.entries(parts).filter(([id, markup]) => sent[id] !== markup));
				sent = parts;
				if (Object.keys(changed).length > 0) send(message("parts", sequence, changed));
			}
			if (isFinished(current.state)) {
				send(message("end", sequence, { state: current.state }));
				return;
			}
			await pause(pollMilliseconds, signal);
			if (signal.aborted) return;
		}
		async function batch(): Promise<readonly JobEventRecord[]> {
			if (signal.aborted) return [];
			const rows = await data.listJobEvents(job.id, sequence, BATCH);
			sequence = rows.at(-1)?.sequence ?? sequence;
			return rows;
		}
	}

	function handle(request: Request, response: Response, job: JobRecord): void {
		const after = lastEventId(request);
		if (after === null) {
			response.status(400).json({ error: "Last-Event-ID is the number of an event." });
			return;
		}
		if (open.size >= maximumClients) {
			response.set("Retry-After", "15").status(503).json({ error: "Too many people follow jobs just now." });
			return;
		}
		const asParts = request.query["view"] === "parts";
		const abort = new AbortController();
		const finish = (): void => {
			if (!open.delete(finish)) return;
			clearInterval(keepAlive);
			abort.abort();
			response.end();
		};
		const send = (text: string): boolean => {
			if (abort.signal.aborted) return false;
			const flowing = response.write(text);
			// A reader that does not keep up is let go: it comes back with the last number it has.
			if (response.writableLength > 4 * 1024 * 1024) finish();
			return flowing;
		};
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
		follow(job, asParts, after, send, abort.signal)
			.catch((error: unknown) => log.error("A job's event stream broke", { job: job.id, error }))
			.finally(finish);
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
