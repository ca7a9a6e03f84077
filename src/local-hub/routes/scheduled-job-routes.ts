import { type Request, Router } from "express";
import { z } from "zod";
import { type HubContext, parameter, parsedBody } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { jobBodySchema, labelsSchema, shownSpec, specOf } from "../job-spec.ts";
import { jobPerson, jobReader, jobView, jobWriter } from "../job-view.ts";
import type { ScheduledJob } from "../scheduled-job-store.ts";
import { jsonBody } from "./body-parsers.ts";

const createSchema = z.object({
	jobSpec: jobBodySchema,
	schedule: z.string(),
	suspend: z.boolean().default(false),
	concurrency: z.boolean().default(false),
});

/** Jobs at set times: made, changed, run at once. */
export function scheduledJobRoutes(context: HubContext): Router {
	const router = Router();
	const base = "/api/scheduled-jobs/:ns";

	function view(job: ScheduledJob): Record<string, unknown> {
		return {
			type: "scheduled-job",
			id: job.id,
			createdAt: job.createdAt,
			schedule: job.schedule,
			suspend: job.suspend,
			concurrency: job.concurrency,
			status: {
				lastJob: job.lastJob,
				nextJobRunAt: (context.scheduledJobs.nextRunAt(job) ?? context.clock.now()).toISOString(),
			},
			owner: jobPerson(context, job.namespace),
			initiator: jobPerson(context, job.createdBy),
			jobSpec: shownSpec(job.spec),
		};
	}

	function found(request: Request, namespace: string): ScheduledJob {
		const job = context.scheduledJobs.get(namespace, parameter(request, "id"));
		if (job === null) throw new HubError(404, "Scheduled job not found");
		return job;
	}

	router.post(base, jsonBody, async (request, response) => {
		const { namespace, identity } = jobWriter(context, request);
		if (!context.jobs.runsJobs) throw new HubError(501, "This Hub runs no jobs.");
		const { jobSpec, ...rest } = parsedBody(createSchema, request);
		const made = { ...rest, spec: specOf(jobSpec), namespace, createdBy: identity.user.name };
		response.json(view(await context.scheduledJobs.create(made)));
	});

	router.get(base, (request, response) => {
		const { namespace } = jobReader(context, request);
		response.json(context.scheduledJobs.list(namespace).map(view));
	});

	router.get(`${base}/:id`, (request, response) => {
		const { namespace } = jobReader(context, request);
		response.json(view(found(request, namespace)));
	});

	router.delete(`${base}/:id`, async (request, response) => {
		const { namespace } = jobWriter(context, request);
		await context.scheduledJobs.delete(found(request, namespace));
		response.json({});
	});

	for (const action of ["suspend", "resume"] as const)
		router.post(`${base}/:id/${action}`, async (request, response) => {
			const { namespace } = jobWriter(context, request);
			const job = found(request, namespace);
			response.json(view(await context.scheduledJobs.change(job, { suspend: action === "suspend" })));
		});

	router.post(`${base}/:id/schedule`, jsonBody, async (request, response) => {
		const { namespace } = jobWriter(context, request);
		const { schedule } = parsedBody(z.object({ schedule: z.string() }), request);
		response.json(view(await context.scheduledJobs.change(found(request, namespace), { schedule })));
	});

	router.put(`${base}/:id/labels`, jsonBody, async (request, response) => {
		const { namespace } = jobWriter(context, request);
		const { labels } = parsedBody(z.object({ labels: labelsSchema }), request);
		const job = found(request, namespace);
		response.json(view(await context.scheduledJobs.change(job, { spec: { ...job.spec, labels } })));
	});

	router.post(`${base}/:id/run`, async (request, response) => {
		const { namespace } = jobWriter(context, request);
		response.json(jobView(context, await context.scheduledJobs.run(found(request, namespace))));
	});
	return router;
}
