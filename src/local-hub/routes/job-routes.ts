import { type Request, type Response, Router } from "express";
import { z } from "zod";
import { type HubContext, namespaceId, parameter, parsedBody, queryNumber, queryTexts } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { JOB_HARDWARE } from "../job-hardware.ts";
import { jobBodySchema, labelsSchema, specOf } from "../job-spec.ts";
import { isTerminal, type JobRecord } from "../job-store.ts";
import { metricsOf } from "../job-usage.ts";
import { jobReader, jobView, jobWriter } from "../job-view.ts";
import { jsonBody } from "./body-parsers.ts";

const PAGE = 100;
const KEEP_ALIVE_MILLISECONDS = 30_000;

/** The Jobs API: what the stock clients use of it. Long as a list of routes is: each handler stands alone. */
export function jobRoutes(context: HubContext): Router {
	const router = Router();

	function jobOf(request: Request, namespace: string): JobRecord {
		const job = context.jobs.get(namespace, parameter(request, "id"));
		if (job === null) throw new HubError(404, "Job not found");
		return job;
	}

	function matching(request: Request, namespace: string): readonly JobRecord[] {
		const wanted = queryTexts(request, "label").map((pair) => {
			const separator = pair.indexOf("=");
			return separator < 0 ? ([pair, null] as const) : ([pair.slice(0, separator), pair.slice(separator + 1)] as const);
		});
		const stages: readonly string[] = queryTexts(request, "stage");
		return context.jobs
			.list(namespace)
			.filter((job) =>
				wanted.every(([key, value]) => (value === null ? job.labels[key] !== undefined : job.labels[key] === value)),
			)
			.filter((job) => stages.length === 0 || stages.includes(job.status.stage));
	}

	router.get("/api/jobs/hardware", (_request, response) => {
		response.json(JOB_HARDWARE);
	});

	router.post("/api/jobs/:ns", jsonBody, async (request, response) => {
		const { namespace, identity } = jobWriter(context, request);
		const spec = specOf(parsedBody(jobBodySchema, request));
		const job = await context.jobs.run(spec, { namespace, user: identity.user.name });
		response.json(jobView(context, job));
	});

	router.get("/api/jobs/:ns", (request, response) => {
		const { namespace } = jobReader(context, request);
		const from = queryNumber(request, "cursor", 0, 1_000_000);
		const found = matching(request, namespace);
		if (found.length > from + PAGE) {
			const next = new URL(request.originalUrl, context.origin());
			next.searchParams.set("cursor", String(from + PAGE));
			response.set("Link", `<${next.href}>; rel="next"`);
		}
		response.json(found.slice(from, from + PAGE).map((job) => jobView(context, job)));
	});

	router.post("/api/jobs/:ns/auth-check/:permission", (request, response) => {
		const permission = z.enum(["read", "write"]).safeParse(parameter(request, "permission"));
		if (!permission.success) throw new HubError(404, "Not found");
		const { namespace, identity } =
			permission.data === "write" ? jobWriter(context, request) : jobReader(context, request);
		if (!context.jobs.runsJobs) throw new HubError(403, "This local Hub runs no jobs: it was started without them.");
		response.json({
			namespace: { id: namespaceId(context, namespace), name: namespace },
			user: { id: identity.user.id, name: identity.user.name },
		});
	});

	router.get("/api/jobs/:ns/:id", (request, response) => {
		const { namespace } = jobReader(context, request);
		response.json(jobView(context, jobOf(request, namespace)));
	});

	router.post("/api/jobs/:ns/:id/cancel", (request, response) => {
		const { namespace } = jobWriter(context, request);
		response.json(jobView(context, context.jobs.cancel(jobOf(request, namespace))));
	});

	router.put("/api/jobs/:ns/:id/labels", jsonBody, async (request, response) => {
		const { namespace } = jobWriter(context, request);
		const body = parsedBody(z.object({ labels: labelsSchema }), request);
		response.json(jobView(context, await context.jobs.setLabels(jobOf(request, namespace), body.labels)));
	});

	router.post("/api/jobs/:ns/:id/duplicate", async (request, response) => {
		const { namespace, identity } = jobWriter(context, request);
		const first = jobOf(request, namespace);
		const spec = context.jobs.specOf(first);
		if (spec === null)
			throw new HubError(409, "The job's secrets went with an earlier process of this Hub: start it anew.");
		const by = { namespace, user: identity.user.name, initiator: { type: "duplicated-job", id: first.id } } as const;
		response.json(jobView(context, await context.jobs.run(spec, by)));
	});

	router.get("/api/jobs/:ns/:id/metrics", (request, response) => {
		const { namespace } = jobReader(context, request);
		streamMetrics(context, jobOf(request, namespace), response);
	});

	router.get("/api/jobs/:ns/:id/logs", async (request, response) => {
		const { namespace } = jobReader(context, request);
		await streamLog(context, jobOf(request, namespace), response);
	});
	return router;
}

const SAMPLE_MILLISECONDS = 1000;

/** A sample a second while the job runs; 406 for one that does not. */
function streamMetrics(context: HubContext, job: JobRecord, response: Response): void {
	let before = context.jobs.usage(job);
	if (before === null) throw new HubError(406, "Metrics are there while a job runs.");
	const gigabytes = Number.parseFloat(JOB_HARDWARE.find((one) => one.name === job.flavor)?.ram ?? "16");
	response.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
	response.flushHeaders();
	const send = (): void => {
		const now = context.jobs.usage(job);
		if (now === null || before === null) {
			clearInterval(timer);
			response.end();
			return;
		}
		const sample = { secondsSince: SAMPLE_MILLISECONDS / 1000, memoryTotalBytes: gigabytes * 1e9 };
		response.write(`event: metric\ndata: ${JSON.stringify(metricsOf(before, now, sample))}\n\n`);
		before = now;
	};
	const timer = setInterval(send, SAMPLE_MILLISECONDS);
	response.once("close", () => clearInterval(timer));
	send();
}

/** Server-sent events, from the first line on. The real stream, too, may end while the job still runs. */
async function streamLog(context: HubContext, job: JobRecord, response: Response): Promise<void> {
	let left = context.faults.takeShortJobLog() ?? Number.POSITIVE_INFINITY;
	response.set({ "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
	response.flushHeaders();
	const keepAlive = setInterval(() => response.write(": keep-alive\n\n"), KEEP_ALIVE_MILLISECONDS);
	if (!isTerminal(job.status.stage)) response.write(": keep-alive\n\n");
	let stop = (): void => undefined;
	const end = (): void => {
		clearInterval(keepAlive);
		stop();
		response.end();
	};
	response.once("close", end);
	const following = await context.jobs.follow(
		job,
		(line) => {
			if (left <= 0) return;
			left--;
			response.write(`data: ${JSON.stringify(line)}\n\n`);
			if (left === 0) end();
		},
		end,
	);
	stop = following.stop;
	if (response.writableEnded || response.destroyed) stop();
}
