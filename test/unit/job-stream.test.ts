import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setImmediate, setTimeout } from "node:timers/promises";
import type { JobEventRecord, JobRecord } from "../../src/records/job.ts";
import { makeEvents, makeJob, memoryData, startSite, type TestSite } from "../support/web-fixtures.ts";

type Message = { id: number | null; event: string; data: unknown };

const jobs: JobRecord[] = [];
const events: JobEventRecord[] = [];
let site: TestSite;
before(async () => {
	site = await startSite(memoryData({ jobs, events }), { keepAliveMilliseconds: 30, maximumStreams: 2 });
});
after(() => site.close());

/** Reads a stream until `enough` or its end. */
async function read(
	path: string,
	options: { lastEventId?: number; enough?: (messages: Message[], text: string) => boolean } = {},
): Promise<{ status: number; messages: Message[]; text: string; ended: boolean }> {
	const abort = new AbortController();
	const response = await fetch(`${site.url}${path}`, {
		signal: abort.signal,
		headers: options.lastEventId === undefined ? {} : { "Last-Event-ID": String(options.lastEventId) },
	});
	let text = "";
	let ended = true;
	const messages: Message[] = [];
	const decoder = new TextDecoder();
	const reader = response.body?.getReader();
	for (;;) {
		const chunk = await reader?.read();
		if (chunk === undefined || chunk.done) break;
		text += decoder.decode(chunk.value, { stream: true });
		messages.length = 0;
		for (const block of text.split("\n\n").slice(0, -1)) {
			const field = (name: string): string | null => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1] ?? null;
			const data = field("data");
			if (data === null) continue;
			messages.push({ id: Number(field("id")), event: field("event") ?? "", data: JSON.parse(data) });
		}
		if (options.enough?.(messages, text) === true) {
			ended = false;
			abort.abort();
			break;
		}
	}
	return { status: response.status, messages, text, ended };
}

function addJob(options: Partial<JobRecord> = {}): { job: JobRecord; rows: JobEventRecord[] } {
	const job = makeJob(options);
	jobs.push(job);
	const rows = makeEvents(job.id);
	events.push(...rows);
	return { job, rows };
}

test("a finished job's events come in order with their numbers, then the end", async () => {
	const { job, rows } = addJob({ state: "done" });

	const { messages, ended } = await read(`/jobs/${job.id}/events?layers=1`);

	assert.deepEqual(
		messages.slice(0, -1).map((message) => message.id),
		rows.map((row) => row.sequence),
	);
	assert.equal(messages[0]?.event, "state");
	assert.deepEqual((messages.at(0)?.data as { body?: unknown } | undefined)?.body, rows[0]?.body);
	assert.equal(messages.at(-1)?.event, "end");
	assert.equal(ended, true);
});

test("Last-Event-ID goes on after that event, without a gap or a repeat", async () => {
	const { job, rows } = addJob({ state: "done" });
	const whole = await read(`/jobs/${job.id}/events?layers=1`);
	const cut = 7;

	const rest = await read(`/jobs/${job.id}/events?layers=1`, { lastEventId: cut });

	assert.equal(rest.messages[0]?.id, cut + 1);
	assert.deepEqual(
		[...whole.messages.slice(0, cut), ...rest.messages].map((message) => message.id),
		whole.messages.map((message) => message.id),
	);
	assert.equal(rows.length + 1, whole.messages.length);
});

test("a client that has everything of a finished job is told to stay away", async () => {
	const { job, rows } = addJob({ state: "done" });
	const { status } = await read(`/jobs/${job.id}/events`, { lastEventId: rows.length });
	assert.equal(status, 204);
});

test("events that happen while somebody listens arrive, and idle streams are kept alive", async () => {
	const { job, rows } = addJob();
	let added = false;

	const { messages, text } = await read(`/jobs/${job.id}/events?layers=1`, {
		enough: (seen, raw) => {
			if (!added && seen.length === rows.length && raw.includes(": still here")) {
				added = true;
				events.push({
					jobId: job.id,
					sequence: rows.length + 1,
					at: new Date(),
					kind: "state",
					body: { from: "running", to: "ingesting", statusText: "Collecting." },
				});
			}
			return seen.length > rows.length;
		},
	});

	assert.equal(messages.at(-1)?.id, rows.length + 1);
	assert.match(text, /: still here/);
});

test("the page's parts come as escaped markup and only when they change", async () => {
	const { job } = addJob({ state: "failed", statusText: "<script>alert(1)</script>" });

	const { messages } = await read(`/jobs/${job.id}/events?view=parts`);

	const parts = messages.filter((message) => message.event === "parts");
	assert.equal(parts.length, 1);
	const data = parts[0]?.data as Record<string, string>;
	assert.match(data["part-stages"] ?? "", /14 of 57 layers/);
	assert.ok(!JSON.stringify(data).includes("<script>"));
	assert.equal(messages.at(-1)?.event, "end");
});

test("a number that is none gets 400", async () => {
	const { job } = addJob();
	const response = await fetch(`${site.url}/jobs/${job.id}/events`, { headers: { "Last-Event-ID": "x" } });
	assert.equal(response.status, 400);
});

test("listeners beyond the cap are turned away and let in again later", async () => {
	const { job } = addJob();
	const controllers = [new AbortController(), new AbortController()];
	// A response that nobody holds is collected as garbage, and its stream closed with it.
	const streams: Response[] = [];
	for (const { signal } of controllers) streams.push(await fetch(`${site.url}/jobs/${job.id}/events`, { signal }));

	const refused = await fetch(`${site.url}/jobs/${job.id}/events`);
	assert.equal(refused.status, 503);
	assert.ok(streams.every((stream) => stream.status === 200));
	assert.ok(refused.headers.has("retry-after"));

	for (const controller of controllers) controller.abort();
	for (let attempt = 0; ; attempt++) {
		const abort = new AbortController();
		const response = await fetch(`${site.url}/jobs/${job.id}/events`, { signal: abort.signal });
		abort.abort();
		if (response.status === 200) break;
		assert.ok(attempt < 100);
		await setTimeout(20);
	}
});

test("an unknown job has no stream", async () => {
	assert.equal((await fetch(`${site.url}/jobs/${crypto.randomUUID()}/events`)).status, 404);
	assert.equal((await fetch(`${site.url}/jobs/not-a-number/events`)).status, 404);
});

test("the evidence of single layers is left out unless it is asked for, and the numbers stay", async () => {
	const { job, rows } = addJob({ state: "done" });
	const layers = rows.filter(({ body }) => (body as { event?: string }).event === "layer").map((row) => row.sequence);
	assert.ok(layers.length > 0);
	const { messages } = await read(`/jobs/${job.id}/events`);
	const sent = messages.slice(0, -1).map((message) => message.id);
	assert.deepEqual(
		sent,
		rows.map((row) => row.sequence).filter((number) => !layers.includes(number)),
	);
});

test("however many follow a job, the database is asked once a turn; an address has a cap of its own", async () => {
	const { job, rows } = addJob();
	const asked = { job: 0, events: 0, variants: 0 };
	let held: Promise<void> | null = null;
	const memory = memoryData({ jobs, events });
	const crowded = await startSite(
		{
			...memory,
			getJob: async (id) => {
				asked.job++;
				await held;
				return memory.getJob(id);
			},
			listJobEvents: (id, after, limit) => {
				asked.events++;
				return memory.listJobEvents(id, after, limit);
			},
			listVariantsOfJob: (id) => {
				asked.variants++;
				return memory.listVariantsOfJob(id);
			},
		},
		{ maximumStreams: 200, maximumStreamsPerAddress: 10, keepAliveMilliseconds: 10_000 },
	);
	try {
		const abort = new AbortController();
		// A proxy on this machine tells whom it asks for; nobody else's word counts.
		const open = (address: string) =>
			fetch(`${crowded.url}/jobs/${job.id}/events?view=parts`, {
				signal: abort.signal,
				headers: { "X-Forwarded-For": address },
			});
		// A response that nobody holds is collected as garbage, and its stream closed with it.
		const streams: Response[] = [];
		for (let index = 0; index < 100; index++) {
			const stream = await open(`203.0.113.${index % 10}`);
			assert.equal(stream.status, 200, `stream ${index}`);
			streams.push(stream);
		}
		assert.equal((await open("203.0.113.1")).status, 503);
		let release = (): void => {};
		held = new Promise((resolve) => {
			release = resolve;
		});
		Object.assign(asked, { job: 0, events: 0, variants: 0 });
		while (asked.job === 0) await setImmediate();
		await setTimeout(100);
		assert.equal(asked.job, 1, "while one look is under way there is no other");
		events.push({ jobId: job.id, sequence: rows.length + 1, at: new Date(), kind: "state", body: { to: "ingesting" } });
		release();
		while (asked.job < 10) await setTimeout(10);
		assert.ok(asked.events <= asked.job + 1, `${asked.events} looks at its events`);
		assert.ok(asked.variants <= 2, `${asked.variants} looks at its variants, which changed once`);
		const alive = await fetch(`${crowded.url}/healthz`);
		assert.equal(alive.status, 200);
		assert.ok(streams.every((stream) => stream.body?.locked === false));
		abort.abort();
	} finally {
		await crowded.close();
	}
});
