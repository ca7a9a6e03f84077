import type { Router } from "express";
import express from "express";
import { z } from "zod";
import type { JobControl } from "../../commands/job-control.ts";
import type { JobRecord } from "../../records/job.ts";
import { CursorParameter } from "../cursor-parameter.ts";
import { foldEvents, type JobProgress, NO_PROGRESS } from "../job-progress.ts";
import type { JobStreams } from "../job-stream.ts";
import { jobView } from "../job-view.ts";
import { jobJson, PAGE_ROWS, type Site } from "../site.ts";
import { jobPage } from "../views/job-page.ts";
import { jobsPage } from "../views/jobs-page.ts";

/** `GET /jobs`, a job's page, and the stream of its events. */
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
		const page = await site.data.listJobs({ cursor, limit: PAGE_ROWS });
		site.reply(request, response, { jobs: page.items.map(jobJson), nextCursor: page.next }, () =>
			jobsPage(site.context(), page, cursor),
		);
	});

	router.get("/jobs/:id", async (request, response) => {
		const job = await findJob(request.params.id);
		if (job === null) {
			site.notFound(request, response, "There is no job of that number here.");
			return;
		}
		const view = await jobView(site, job, await progressOf(job.id));
		const { variants, progress, place } = view;
		const viewer = site.viewer();
		const actions = viewer === null || jobControl === null ? [] : await jobControl.actionsFor(job, viewer);
		site.reply(request, response, { job: jobJson(job), variants, progress, place }, () =>
			jobPage(site.context(), view, actions),
		);
	});

	router.get("/jobs/:id/events", async (request, response) => {
		const job = await findJob(request.params.id);
		if (job === null) {
			response.status(404).json({ error: "There is no job of that number here." });
			return;
		}
		streams.handle(request, response, job);
	});
	return router;
}
