import type { Router } from "express";
import express from "express";
import { z } from "zod";
import type { JobControl } from "../../commands/job-control.ts";
import type { JobEventRecord, JobRecord } from "../../records/job.ts";
import { CursorParameter } from "../cursor-parameter.ts";
import { foldEvents, type JobProgress, NO_PROGRESS } from "../job-progress.ts";
import type { JobStreams } from "../job-stream.ts";
import { jobView } from "../job-view.ts";
import { jobJson, PAGE_ROWS, type Site } from "../site.ts";
import { textParameter } from "../text-parameter.ts";
import { jobPage } from "../views/job-page.ts";
import { jobsPage } from "../views/jobs-page.ts";
import { logPage } from "../views/log-page.ts";

const LOG_LINES = 200;
const NO_JOB = "There is no job of that number here.";
/** Addresses are written and shared by people: what does not parse counts as not given. */
const LogParameters = z.object({
	q: textParameter(200),
	after: z.coerce.number().int().min(0).max(2_000_000_000).catch(0).default(0),
	layers: z
		.literal("1")
		.transform(() => true)
		.catch(false)
		.default(false),
});

function eventJson({ sequence, at, kind, body }: JobEventRecord): unknown {
	return { sequence, at: at.toISOString(), kind, body };
}

/** `GET /jobs`, a job's page, its log, and the stream of its events. */
export function jobRoutes(site: Site, streams: Pick<JobStreams, "handle">, jobControl: JobControl | null): Router {
	const router = express.Router();

	async function findJob(id: string): Promise<JobRecord | null> {
		return z.uuid().safeParse(id).success ? await site.data.getJob(id) : null;
	}

	async function progressOf(jobId: string): Promise<JobProgress> {
		let progress = NO_PROGRESS;
		for (;;) {
			const rows = await site.data.listJobEvents(jobId, progress.lastSequence, 1000);
			progress = foldEvents(progress, rows);
			if (rows.length < 1000) return progress;
		}
	}

	router.get("/jobs", async (request, response) => {
		const { cursor } = CursorParameter.parse(request.query);
		const make = async () => {
			const page = await site.data.listJobs({ cursor, limit: PAGE_ROWS });
			return {
				twin: { jobs: page.items.map(jobJson), nextCursor: page.next },
				page: () => jobsPage(site.context(), page, cursor),
			};
		};
		await site.replyShared(request, response, { key: ["/jobs", cursor], make });
	});

	router.get("/jobs/:id", async (request, response) => {
		const { id } = request.params;
		const make = async () => {
			const job = await findJob(id);
			if (job === null) return null;
			const view = await jobView(site, job, await progressOf(job.id));
			const { variants, progress, place } = view;
			const viewer = site.viewer();
			const actions = viewer === null || jobControl === null ? [] : await jobControl.actionsFor(job, viewer);
			return {
				twin: { job: jobJson(job), variants, progress, place },
				page: () => jobPage(site.context(), view, actions),
			};
		};
		await site.replyShared(request, response, { key: ["/jobs", id, "page"], make, missing: NO_JOB });
	});

	router.get("/jobs/:id/log", async (request, response) => {
		const { id } = request.params;
		const query = LogParameters.parse(request.query);
		const search = query.q === "" ? null : query.q;
		const make = async () => {
			const job = await findJob(id);
			if (job === null) return null;
			const found = await site.data.searchJobEvents(job.id, { ...query, search, limit: LOG_LINES + 1 });
			const events = found.slice(0, LOG_LINES);
			const next = found.length > LOG_LINES ? (events.at(-1)?.sequence ?? null) : null;
			return {
				twin: { events: events.map(eventJson), next },
				page: () => logPage(site.context(), job, query, { events, next }),
			};
		};
		await site.replyShared(request, response, { key: ["/jobs", id, "log", query], make, missing: NO_JOB });
	});

	router.get("/jobs/:id/events", async (request, response) => {
		const job = await findJob(request.params.id);
		if (job === null) {
			response.status(404).json({ error: NO_JOB });
			return;
		}
		streams.handle(request, response, job);
	});
	return router;
}
