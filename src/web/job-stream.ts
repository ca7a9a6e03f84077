import type { Request, Response } from "express";
import { isFinished, type JobRecord } from "../records/job.ts";
import type { WebData } from "./data.ts";
import { createJobFeed, type JobFeed, type JobFeedOptions, type Watcher } from "./job-feed.ts";

type JobStreamOptions = JobFeedOptions & {
	/** Shared by all who serve streams of one site. */
	readonly clients: StreamClients;
	readonly keepAliveMilliseconds: number;
};

export type StreamClients = ReturnType<typeof countClients>;

export type JobStreams = {
	readonly handle: (request: Request, response: Response, job: JobRecord) => void;
	readonly clients: () => number;
	/** Ends every stream, so that the server can close. Clients come back by themselves. */
	readonly close: () => void;
};

/** What may wait for a client that reads slowly; one that falls further behind comes back with the last number it has. */
const MAXIMUM_WAITING_BYTES = 1024 * 1024;

/** `null`: not a number that an event of ours could have. */
function lastEventId(request: Request): number | null {
	const text =
		request.get("last-event-id") ?? (typeof request.query["after"] === "string" ? request.query["after"] : "");
	if (text === "") return 0;
	return /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** Holds how many streams there are, in all and to one address. */
export function countClients(maximumClients: number, maximumPerAddress: number) {
	const perAddress = new Map<string, number>();
	let total = 0;
	return {
		/** `null`: one more is welcome, and counted; otherwise why not. */
		enter(address: string): string | null {
			const own = perAddress.get(address) ?? 0;
			if (own >= maximumPerAddress) return "You follow too many jobs just now.";
			if (total >= maximumClients) return "Too many people follow jobs just now.";
			perAddress.set(address, own + 1);
			total++;
			return null;
		},
		leave(address: string): void {
			const left = (perAddress.get(address) ?? 1) - 1;
			if (left > 0) perAddress.set(address, left);
			else perAddress.delete(address);
			total--;
		},
	};
}

async function hasMore(data: WebData, job: JobRecord, after: number): Promise<boolean> {
	return (await data.listJobEvents(job.id, after, 1)).length > 0;
}

function begin(response: Response): void {
	response.status(200).set({
		"Content-Type": "text/event-stream; charset=utf-8",
		"Cache-Control": "no-store",
		"X-Accel-Buffering": "no",
	});
	response.flushHeaders();
}

/**
 * Server-sent events of a job. As they stand: every row of the job as `state` or `runner`, its number as the `id`, so
 * that `Last-Event-ID` resumes without a gap; the evidence of single layers, thousands of rows, only with `?layers=1`.
 * With `?view=parts`: the changed parts of the job page. Both end with `end` once the job has; a client that comes back
 * after that gets 204, which stops `EventSource`.
 */
export function createJobStreams(options: JobStreamOptions): JobStreams {
	const { data, log, clients, keepAliveMilliseconds } = options;
	const open = new Set<() => void>();
	const feeds = new Map<string, JobFeed>();

	function feedOf(job: JobRecord): JobFeed {
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
		const full = clients.enter(address);
		if (full !== null) {
			response.set("Retry-After", "15").status(503).json({ error: full });
			return;
		}
		const asParts = request.query["view"] === "parts";
		const finish = (): void => {
			if (!open.delete(finish)) return;
			clearInterval(keepAlive);
			clients.leave(address);
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
		begin(response);
		send("retry: 2000\n\n");
		feed.add(watcher);
	}

	async function respond(request: Request, response: Response, job: JobRecord): Promise<void> {
		const after = lastEventId(request);
		if (after !== null && after > 0 && isFinished(job.state) && !(await hasMore(data, job, after))) {
			response.status(204).end();
			return;
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
