import type { NextFunction, Request, Response } from "express";
import { z } from "zod";
import { sendOver, type UploadLine, uploadLine } from "./request-bytes.ts";

/**
 * What goes wrong on a matching route.
 * `status` answers it instead of the handler; `status-after` lets the handler do its work and then answers it;
 * `disconnect` and `disconnect-after` cut the connection before or after the work; `silent-after` does the work and
 * never answers; `slow` only waits; `truncated` does the work and cuts its answer off half-way; `wrong` answers with a
 * page that says nothing, as a proxy in front of a Hub does.
 */
const routeFaultSchema = z.object({
	method: z.string().max(10).optional(),
	/** A regular expression over the request's path and query. */
	path: z.string().max(500),
	kind: z
		.enum(["status", "status-after", "disconnect", "disconnect-after", "silent-after", "slow", "truncated", "wrong"])
		.default("status"),
	status: z.number().int().min(400).max(599).default(503),
	delayMilliseconds: z.number().int().min(0).max(600_000).default(0),
	retryAfterSeconds: z.number().int().min(0).optional(),
	times: z.number().int().min(1).default(1),
});
export const faultsSchema = z.object({
	dropWebhooks: z.number().int().min(0).optional(),
	duplicateWebhooks: z.number().int().min(0).optional(),
	/** So many of the next jobs are gone, record and process, as soon as they started. */
	vanishingJobs: z.number().int().min(0).optional(),
	/** So many of the next jobs do nothing and succeed. */
	emptyJobs: z.number().int().min(0).optional(),
	/** So many of the next jobs are cancelled for want of credits. */
	unpaidJobs: z.number().int().min(0).optional(),
	/** Streams of job logs that end early, and after how many lines. */
	shortJobLogs: z.object({ times: z.number().int().min(0), lines: z.number().int().min(1) }).optional(),
	/** What all uploads together get; `null` ends it. */
	uploadBytesPerSecond: z.number().int().min(1).nullable().optional(),
	routes: z.array(routeFaultSchema).optional(),
});
export type FaultPlan = z.input<typeof faultsSchema>;

export type Faults = {
	/** Replaces the switches that the plan names; the others stay. */
	set(plan: FaultPlan): void;
	clear(): void;
	state(): Readonly<Record<string, unknown>>;
	takeDroppedDelivery(): boolean;
	takeDuplicatedDelivery(): boolean;
	takeVanishingJob(): boolean;
	takeEmptyJob(): boolean;
	takeUnpaidJob(): boolean;
	/** How many lines the next log stream gives, when it is to end early. */
	takeShortJobLog(): number | null;
	middleware(request: Request, response: Response, next: NextFunction): void;
};

/** Whatever the handler answers breaks off half-way; the length it promised is that of the whole. */
function cutOff(request: Request, response: Response): void {
	const half = (bytes: Buffer): Buffer => bytes.subarray(0, Math.floor(bytes.length / 2));
	const write = response.write.bind(response);
	const cut = (bytes: Buffer): void => {
		write(half(bytes));
		// What was written goes out first.
		setTimeout(() => request.socket.destroy(), 20);
	};
	response.json = (body: unknown) => {
		const bytes = Buffer.from(JSON.stringify(body));
		response.set("Content-Type", "application/json").set("Content-Length", String(bytes.length));
		cut(bytes);
		return response;
	};
	response.write = (chunk: unknown) => {
		cut(Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk)));
		return true;
	};
}

type ArmedRoute = z.infer<typeof routeFaultSchema> & { pattern: RegExp; left: number };

/** The faults that are armed, each a counter with one function that arms it and one that takes it: hence the length. */
export function createFaults(initial: FaultPlan = {}): Faults {
	let drop = 0;
	let duplicate = 0;
	const jobs = { vanishing: 0, empty: 0, unpaid: 0 };
	let shortLogs = { times: 0, lines: 1 };
	let uploadBytesPerSecond: number | null = null;
	let line: UploadLine | null = null;
	let routes: ArmedRoute[] = [];

	function slowUploads(rate: number | null): void {
		uploadBytesPerSecond = rate;
		line = rate === null ? null : uploadLine(rate);
	}

	function takeJob(kind: keyof typeof jobs): boolean {
		if (jobs[kind] === 0) return false;
		jobs[kind]--;
		return true;
	}

	const faults: Faults = {
		set(plan) {
			const parsed = faultsSchema.parse(plan);
			const armed = parsed.routes?.map((route) => ({ ...route, pattern: new RegExp(route.path), left: route.times }));
			drop = parsed.dropWebhooks ?? drop;
			duplicate = parsed.duplicateWebhooks ?? duplicate;
			jobs.vanishing = parsed.vanishingJobs ?? jobs.vanishing;
			jobs.empty = parsed.emptyJobs ?? jobs.empty;
			jobs.unpaid = parsed.unpaidJobs ?? jobs.unpaid;
			shortLogs = parsed.shortJobLogs ?? shortLogs;
			if (parsed.uploadBytesPerSecond !== undefined) slowUploads(parsed.uploadBytesPerSecond);
			routes = armed ?? routes;
		},
		clear() {
			drop = 0;
			duplicate = 0;
			Object.assign(jobs, { vanishing: 0, empty: 0, unpaid: 0 });
			shortLogs = { times: 0, lines: 1 };
			slowUploads(null);
			routes = [];
		},
		state: () => ({
			dropWebhooks: drop,
			duplicateWebhooks: duplicate,
			vanishingJobs: jobs.vanishing,
			emptyJobs: jobs.empty,
			unpaidJobs: jobs.unpaid,
			shortJobLogs: shortLogs,
			uploadBytesPerSecond,
			routes: routes.map(({ pattern: _pattern, ...route }) => route),
		}),
		takeDroppedDelivery() {
			if (drop === 0) return false;
			drop--;
			return true;
		},
		takeDuplicatedDelivery() {
			if (duplicate === 0) return false;
			duplicate--;
			return true;
		},
		takeVanishingJob: () => takeJob("vanishing"),
		takeEmptyJob: () => takeJob("empty"),
		takeUnpaidJob: () => takeJob("unpaid"),
		takeShortJobLog() {
			if (shortLogs.times === 0) return null;
			shortLogs = { ...shortLogs, times: shortLogs.times - 1 };
			return shortLogs.lines;
		},
		middleware(request, response, next) {
			if (line !== null) sendOver(request, line);
			const fault = routes.find(
				(route) =>
					route.left > 0 &&
					(route.method === undefined || route.method.toUpperCase() === request.method) &&
					route.pattern.test(request.originalUrl),
			);
			if (fault === undefined) {
				next();
				return;
			}
			fault.left--;
			const answer = (): void => {
				response.status(fault.status);
				if (fault.retryAfterSeconds !== undefined) response.set("Retry-After", String(fault.retryAfterSeconds));
				if (fault.status === 429) {
					response.set("RateLimit", `"api";r=0;t=${fault.retryAfterSeconds ?? 1}`);
					response.set("RateLimit-Policy", '"fixed window";"api";q=500;w=300');
				}
				response.type("application/json").send(JSON.stringify({ error: `Fault switch: ${fault.status}` }));
			};
			const act = (): void => {
				switch (fault.kind) {
					case "status":
						// drain, so that the client has sent its body and reads the answer
						request.resume();
						answer();
						return;
					case "disconnect":
						request.socket.destroy();
						return;
					case "slow":
						next();
						return;
					case "truncated":
						cutOff(request, response);
						next();
						return;
					case "wrong":
						request.resume();
						response.status(200).type("text/html").send("<html><body>Back in a moment.</body></html>");
						return;
					case "status-after":
						response.json = () => {
							answer();
							return response;
						};
						next();
						return;
					case "silent-after":
						response.json = () => response;
						next();
						return;
					case "disconnect-after":
						response.json = () => {
							request.socket.destroy();
							return response;
						};
						next();
						return;
				}
			};
			if (fault.delayMilliseconds > 0) setTimeout(act, fault.delayMilliseconds);
			else act();
		},
	};
	faults.set(initial);
	return faults;
}
