import { type Request, type Response, Router } from "express";
import { z } from "zod";
import { type Identity, isMemberOf, mayWriteNamespace } from "../accounts.ts";
import {
	type HubContext,
	namespaceId,
	parameter,
	parsedBody,
	queryNumber,
	queryText,
	queryTexts,
	requireIdentity,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { JOB_HARDWARE } from "../job-hardware.ts";
import { isTerminal, type JobRecord } from "../job-store.ts";
import { avatarUrl } from "../people.ts";
import { jsonBody } from "./body-parsers.ts";

const PAGE = 100;
const KEEP_ALIVE_MILLISECONDS = 30_000;

const text = z.record(z.string().regex(/^[a-zA-Z][_a-zA-Z0-9]*$/), z.string().max(100_000));
const labels = z.record(
	z
		.string()
		.max(100)
		.regex(/^[a-zA-Z0-9._-]+$/),
	z
		.string()
		.max(100)
		.regex(/^[a-zA-Z0-9._-]*$/),
);
const runBody = z.object({
	spaceId: z.string().optional(),
	dockerImage: z.string().min(1).optional(),
	command: z.array(z.string().min(1)).min(1).optional(),
	arguments: z.array(z.string()).optional(),
	environment: text.default({}),
	secrets: text.default({}),
	flavor: z.enum(JOB_HARDWARE.map((one) => one.name)),
	arch: z.enum(["amd64", "arm64"]).default("amd64"),
	timeoutSeconds: z.number().int().positive().nullable().default(null),
	attempts: z.number().int().min(1).default(1),
	labels: labels.default({}),
});

/** The Jobs API: what the stock clients use of it. Long as a list of routes is: each handler stands alone. */
export function jobRoutes(context: HubContext): Router {
	const router = Router();

	function seconds(from: string, to: string | null): number {
		const end = to === null ? context.clock.now().getTime() : Date.parse(to);
		return Math.max(0, Math.round((end - Date.parse(from)) / 1000));
	}

	function person(name: string): Record<string, string> {
		return {
			id: namespaceId(context, name),
			name,
			type: context.accounts.user(name) === null ? "org" : "user",
			avatarUrl: avatarUrl(context, name),
		};
	}

	function view(job: JobRecord): Record<string, unknown> {
		const { status } = job;
		return {
			type: "job",
			id: job.id,
			createdAt: job.createdAt,
			...(job.startedAt === null ? {} : { startedAt: job.startedAt }),
			...(job.finishedAt === null ? {} : { finishedAt: job.finishedAt }),
			...(job.dockerImage === null ? {} : { dockerImage: job.dockerImage }),
			...(job.spaceId === null ? {} : { spaceId: job.spaceId }),
			timeout: job.timeoutSeconds,
			environment: job.environment,
			command: job.command,
			arguments: job.arguments,
			arch: job.arch,
			flavor: job.flavor,
			labels: job.labels,
			secrets: job.secrets,
			createdBy: { id: namespaceId(context, job.createdBy), name: job.createdBy },
			owner: person(job.namespace),
			initiator: person(job.createdBy),
			durations: {
				schedulingSecs: seconds(job.createdAt, job.startedAt ?? job.finishedAt),
				...(job.startedAt === null ? {} : { runningSecs: seconds(job.startedAt, job.finishedAt) }),
				totalSecs: seconds(job.createdAt, job.finishedAt),
			},
			status: {
				stage: status.stage,
				message: status.message,
				...(status.cancelReason === null ? {} : { cancelReason: status.cancelReason }),
				failureCount: status.stage === "ERROR" ? 1 : 0,
			},
		};
	}

	function member(request: Request): { readonly namespace: string; readonly identity: Identity } {
		const identity = requireIdentity(context, request);
		const namespace = parameter(request, "ns");
		if (!isMemberOf(identity, namespace)) throw new HubError(403, `You have no access to the jobs of ${namespace}.`);
		return { namespace, identity };
	}

	function writer(request: Request): { readonly namespace: string; readonly identity: Identity } {
		const found = member(request);
		if (!mayWriteNamespace(found.identity, found.namespace, "job.write")) {
			throw new HubError(403, `This token may not start or change jobs of ${found.namespace}.`);
		}
		return found;
	}

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
		const stage = queryText(request, "stage");
		return context.jobs
			.list(namespace)
			.filter((job) =>
				wanted.every(([key, value]) => (value === null ? job.labels[key] !== undefined : job.labels[key] === value)),
			)
			.filter((job) => stage === null || job.status.stage === stage);
	}

	router.get("/api/jobs/hardware", (_request, response) => {
		response.json(JOB_HARDWARE);
	});

	router.post("/api/jobs/:ns", jsonBody, async (request, response) => {
		const { namespace, identity } = writer(request);
		const body = parsedBody(runBody, request);
		if ((body.dockerImage === undefined) === (body.spaceId === undefined)) {
			throw new HubError(400, "Give either a dockerImage or a spaceId.");
		}
		if (body.command === undefined) throw new HubError(400, "This Hub needs a command to run.");
		const job = await context.jobs.run(
			{
				dockerImage: body.dockerImage ?? null,
				spaceId: body.spaceId ?? null,
				command: body.command,
				arguments: body.arguments ?? [],
				environment: body.environment,
				secrets: body.secrets,
				flavor: body.flavor,
				arch: body.arch,
				timeoutSeconds: body.timeoutSeconds,
				labels: body.labels,
			},
			{ namespace, user: identity.user.name },
		);
		response.json(view(job));
	});

	router.get("/api/jobs/:ns", (request, response) => {
		const { namespace } = member(request);
		const from = queryNumber(request, "cursor", 0, 1_000_000);
		const found = matching(request, namespace);
		if (found.length > from + PAGE) {
			const next = new URL(request.originalUrl, context.origin());
			next.searchParams.set("cursor", String(from + PAGE));
			response.set("Link", `<${next.href}>; rel="next"`);
		}
		response.json(found.slice(from, from + PAGE).map(view));
	});

	router.post("/api/jobs/:ns/auth-check/:permission", (request, response) => {
		const permission = z.enum(["read", "write"]).safeParse(parameter(request, "permission"));
		if (!permission.success) throw new HubError(404, "Not found");
		const { namespace, identity } = permission.data === "write" ? writer(request) : member(request);
		if (!context.jobs.runsJobs) throw new HubError(403, "This local Hub runs no jobs: it was started without them.");
		response.json({
			namespace: { id: namespaceId(context, namespace), name: namespace },
			user: { id: identity.user.id, name: identity.user.name },
		});
	});

	router.get("/api/jobs/:ns/:id", (request, response) => {
		const { namespace } = member(request);
		response.json(view(jobOf(request, namespace)));
	});

	router.post("/api/jobs/:ns/:id/cancel", (request, response) => {
		const { namespace } = writer(request);
		response.json(view(context.jobs.cancel(jobOf(request, namespace))));
	});

	router.put("/api/jobs/:ns/:id/labels", jsonBody, async (request, response) => {
		const { namespace } = writer(request);
		const body = parsedBody(z.object({ labels }), request);
		response.json(view(await context.jobs.setLabels(jobOf(request, namespace), body.labels)));
	});

	router.get("/api/jobs/:ns/:id/logs", async (request, response) => {
		const { namespace } = member(request);
		await streamLog(context, jobOf(request, namespace), response);
	});
	return router;
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
