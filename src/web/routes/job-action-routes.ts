import type { Router } from "express";
import express from "express";
import { z } from "zod";
import { JOB_ACTIONS, type JobControl } from "../../commands/job-control.ts";
import type { Log } from "../../log.ts";
import { readForm } from "../sign-in/read-form.ts";
import { jobJson, type Site } from "../site.ts";

const Path = z.object({ id: z.uuid(), action: z.enum(JOB_ACTIONS) });

/** `POST /jobs/ID/cancel`, `retry`, `approve`: what the buttons of a job's page send. */
export function jobActionRoutes(
	site: Site,
	options: { readonly origin: string | null; readonly jobControl: JobControl | null; readonly log: Log },
): Router {
	const { origin, jobControl, log } = options;
	const router = express.Router();
	router.post("/jobs/:id/:action", async (request, response, next) => {
		const path = Path.safeParse(request.params);
		if (!path.success || jobControl === null) {
			next();
			return;
		}
		const sent = await readForm(site, request, response, origin);
		if (sent === null) return;
		const { id, action } = path.data;
		const job = await site.data.getJob(id);
		if (job === null) {
			site.notFound(request, response, "There is no job of that number here.");
			return;
		}
		const change = await jobControl.act(job, action, sent.viewer);
		if (change === null) {
			const text =
				action === "approve"
					? "Only whoever runs the bot lets a job start that costs more than jobs may by themselves."
					: `Only people with rights in ${job.sourceRepo} may ${action} this job${action === "cancel" ? ", and who alone asked for it" : ""}.`;
			site.refuse(request, response, { status: 403, title: "Not yours to decide", text });
			return;
		}
		if (!change.ok) {
			site.refuse(request, response, { status: 409, title: "That was not possible", text: change.reason });
			return;
		}
		log.info("Somebody changed a job on its page", { job: id, action, person: sent.viewer.name });
		if (request.accepts(["html", "json"]) === "json") response.json({ job: jobJson(change.job) });
		else response.redirect(303, `/jobs/${id}`);
	});
	return router;
}
