import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { RunnerEvent } from "../src/protocol/events.ts";
import { StackError } from "./stack.ts";

const StateChange = z.object({ to: z.string(), statusText: z.string().catch("") });
const EventRow = z.object({ sequence: z.int(), kind: z.enum(["state", "runner"]), body: z.unknown() });

const Refusal = z.object({ code: z.string(), message: z.string(), remedy: z.string() });

const Job = z.object({
	id: z.string(),
	sourceRepo: z.string(),
	sourceSha: z.string(),
	state: z.string(),
	fence: z.int(),
	statusText: z.string(),
	refusal: Refusal.nullable(),
	createdAt: z.coerce.date(),
	finishedAt: z.coerce.date().nullable(),
});
export type Job = z.infer<typeof Job>;

const Estimate = z.object({ mean: z.number(), standardError: z.number() });

const Variant = z.object({
	id: z.string(),
	recipe: z.string(),
	state: z.string(),
	repo: z.string(),
	url: z.string(),
	klNats: Estimate.nullable(),
	baselines: z.object({ gptq: Estimate.nullable(), rtn: Estimate.nullable() }),
	quantizer: z.string().nullable(),
});
export type Variant = z.infer<typeof Variant>;

const JobPage = z.object({ job: Job, variants: z.array(Variant) });
type JobPage = z.infer<typeof JobPage>;

const JobList = z.object({ jobs: z.array(Job) });

export type JobEvent =
	| { readonly kind: "state"; readonly to: string; readonly statusText: string }
	| { readonly kind: "runner"; readonly event: RunnerEvent };

async function getJson<T>(url: string, schema: z.ZodType<T>): Promise<T> {
	const response = await fetch(url, {
		headers: { accept: "application/json" },
		signal: AbortSignal.timeout(30_000),
	});
	if (!response.ok) throw new StackError(`${url} answered ${response.status}.`);
	return schema.parse(await response.json());
}

export function getJobPage(botUrl: string, id: string): Promise<JobPage> {
	return getJson(`${botUrl}/jobs/${id}`, JobPage);
}

/** The jobs of one source, newest first. */
export async function jobsOf(botUrl: string, sourceRepo: string): Promise<Job[]> {
	const { jobs } = await getJson(`${botUrl}/jobs`, JobList);
	return jobs.filter((job) => job.sourceRepo === sourceRepo);
}

/** Waits for `look` to find something. */
export async function waitFor<T>(
	what: string,
	look: () => Promise<T | null>,
	options: { readonly seconds: number; readonly signal?: AbortSignal },
): Promise<T> {
	const deadline = Date.now() + options.seconds * 1000;
	let problem = "";
	for (;;) {
		options.signal?.throwIfAborted();
		try {
			const found = await look();
			if (found !== null) return found;
		} catch (error) {
			problem = ` (${error instanceof Error ? error.message : String(error)})`;
		}
		if (Date.now() > deadline) throw new StackError(`${what}: not within ${options.seconds} s${problem}.`);
		await sleep(200, undefined, { signal: options.signal });
	}
}

type Message = { id: string; event: string; data: string };

/** The messages of a `text/event-stream` body. */
async function* messages(body: ReadableStream<Uint8Array>): AsyncGenerator<Message> {
	let rest = "";
	let message: Message = { id: "", event: "", data: "" };
	for await (const text of body.pipeThrough(new TextDecoderStream())) {
		const lines = (rest + text).split("\n");
		rest = lines.pop() ?? "";
		for (const line of lines) {
			if (line === "") {
				if (message.data !== "") yield message;
				message = { id: message.id, event: "", data: "" };
				continue;
			}
			const colon = line.indexOf(":");
			const value = line.slice(colon + 1).trimStart();
			switch (line.slice(0, colon)) {
				case "id":
					message.id = value;
					break;
				case "event":
					message.event = value;
					break;
				case "data":
					message.data += value;
					break;
			}
		}
	}
}

/**
 * Follows a job by its event stream to its end. A stream that breaks, as one does when the bot restarts,
 * is taken up after the last event that came.
 */
export async function followJob(params: {
	readonly botUrl: string;
	readonly id: string;
	readonly onEvent: (event: JobEvent) => void;
	readonly signal?: AbortSignal;
	/** A job that says nothing for so long is given up. */
	readonly patienceSeconds: number;
}): Promise<JobPage> {
	const { botUrl, id, onEvent, signal } = params;
	let last = "0";
	let heard = Date.now();
	for (;;) {
		signal?.throwIfAborted();
		try {
			const response = await fetch(`${botUrl}/jobs/${id}/events`, {
				headers: { accept: "text/event-stream", "last-event-id": last },
				...(signal === undefined ? {} : { signal }),
			});
			if (response.status === 204) return await getJobPage(botUrl, id);
			if (response.ok && response.body !== null) {
				for await (const message of messages(response.body)) {
					heard = Date.now();
					if (message.event === "end") return await getJobPage(botUrl, id);
					last = message.id;
					const row = EventRow.parse(JSON.parse(message.data));
					if (row.kind === "state") onEvent({ kind: "state", ...StateChange.parse(row.body) });
					else onEvent({ kind: "runner", event: RunnerEvent.parse(row.body) });
				}
			}
		} catch (error) {
			if (error instanceof z.ZodError) throw error;
			signal?.throwIfAborted();
		}
		if (Date.now() - heard > params.patienceSeconds * 1000) {
			throw new StackError(`Job ${id} said nothing for ${params.patienceSeconds} s.`);
		}
		await sleep(300, undefined, { signal });
	}
}
