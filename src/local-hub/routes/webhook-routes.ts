import { Router } from "express";
import { z } from "zod";
import { type Identity, mayWriteNamespace } from "../accounts.ts";
import { type HubContext, parameter, parsedBody, requireIdentity } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { newId } from "../identifiers.ts";
import { jobBodySchema, shownSpec, specOf } from "../job-spec.ts";
import { avatarUrl } from "../people.ts";
import { WATCHED_TYPES, type Webhook } from "../webhook-store.ts";
import { jsonBody } from "./body-parsers.ts";

const MOST_WEBHOOKS = 100;

const bodySchema = z.object({
	watched: z
		.array(z.object({ type: z.enum(WATCHED_TYPES), name: z.string().min(1).max(200) }))
		.min(1)
		.max(500),
	domains: z
		// the Python client's type says "discussions"
		.array(z.enum(["repo", "discussion", "discussions"]).transform((one) => (one === "repo" ? one : "discussion")))
		.nullish(),
	url: z.url({ protocol: /^https?$/ }).nullish(),
	job: jobBodySchema.optional(),
	jobSourceId: z.string().optional(),
	/** Of the job that is copied: its own stay with it. */
	secrets: z.record(z.string(), z.string()).optional(),
	secret: z
		.string()
		.regex(/^[\x20-\x7F]*$/)
		.max(1000)
		.nullish(),
});

/** The management of webhooks. A secret goes in and never comes out again. Long as a list of routes is: each handler stands alone. */
export function webhookRoutes(context: HubContext): Router {
	const router = Router();
	const base = "/api/settings/webhooks";

	function view(webhook: Webhook): Record<string, unknown> {
		return {
			id: webhook.id,
			...(webhook.url === null ? {} : { url: webhook.url }),
			...(webhook.job === null
				? {}
				: { job: { ...shownSpec(webhook.job), timeoutSeconds: webhook.job.timeoutSeconds } }),
			...(webhook.jobSourceId === null ? {} : { jobSourceId: webhook.jobSourceId }),
			disabled: webhook.disabled,
			watched: webhook.watched.map((one) => ({
				...one,
				avatarUrl: avatarUrl(context, one.name.split("/")[0] ?? one.name),
			})),
			hasSecret: webhook.secret !== null,
			domains: webhook.domains,
			...(webhook.lastTriggerAt === null ? {} : { lastTriggerAt: webhook.lastTriggerAt }),
		};
	}

	function manager(identity: Identity): Identity {
		if (!identity.token.webhooks) throw new HubError(403, "This token has no right to manage webhooks.");
		return identity;
	}

	function own(identity: Identity, id: string): Webhook {
		const webhook = context.webhooks.get(id);
		if (webhook === null || webhook.owner !== identity.user.name) throw new HubError(404, "Webhook not found");
		return webhook;
	}

	/** What the webhook does: calls an address, or starts a job of its owner's. */
	function target(
		body: z.infer<typeof bodySchema>,
		identity: Identity,
	): Pick<Webhook, "url" | "job" | "jobSourceId"> | null {
		const { url, job, jobSourceId } = body;
		if (job === undefined && jobSourceId === undefined) return url ? { url, job: null, jobSourceId: null } : null;
		if (url) throw new HubError(400, "A webhook either calls a url or starts a job.");
		if (!context.jobs.runsJobs) throw new HubError(400, "This Hub runs no jobs: give a url.");
		if (!mayWriteNamespace(identity, identity.user.name, "job.write"))
			throw new HubError(403, "This token may not start jobs.");
		if (job !== undefined) return { url: null, job: specOf(job), jobSourceId: null };
		const source = context.jobs.get(identity.user.name, jobSourceId ?? "");
		if (source === null) throw new HubError(404, "Job not found");
		const spec = { ...context.jobs.withoutSecrets(source), secrets: body.secrets ?? {} };
		return { url: null, job: spec, jobSourceId: source.id };
	}

	function fields(body: z.infer<typeof bodySchema>): Pick<Webhook, "watched" | "domains"> {
		for (const { type, name } of body.watched) {
			const known =
				type === "user"
					? context.accounts.user(name) !== null
					: type === "org"
						? context.accounts.organization(name) !== null
						: /^[^/\s]+\/[^/\s]+$/.test(name);
			if (!known) throw new HubError(400, `There is no ${type} named ${JSON.stringify(name)} to watch.`);
			if (context.accounts.organization(name.split("/")[0] ?? name)?.refusesWebhooks === true)
				throw new HubError(403, `${name} cannot be watched: its organization does not allow webhooks.`);
		}
		const domains = new Set(body.domains ?? ["repo", "discussion"]);
		return {
			watched: body.watched,
			domains: (["repo", "discussion"] as const).filter((one) => domains.has(one)),
		};
	}

	router.get(base, (request, response) => {
		const identity = requireIdentity(context, request);
		response.json(
			context.webhooks
				.all()
				.filter((webhook) => webhook.owner === identity.user.name)
				.map(view),
		);
	});

	router.post(base, jsonBody, async (request, response) => {
		const identity = manager(requireIdentity(context, request));
		const body = parsedBody(bodySchema, request);
		if (context.webhooks.all().filter((one) => one.owner === identity.user.name).length >= MOST_WEBHOOKS)
			throw new HubError(400, `A user has at most ${MOST_WEBHOOKS} webhooks here.`);
		const does = target(body, identity);
		if (does === null) throw new HubError(400, "A webhook needs a url, a job or a jobSourceId.");
		const webhook: Webhook = {
			...does,
			...fields(body),
			id: newId(),
			owner: identity.user.name,
			secret: body.secret || null,
			disabled: false,
			consecutiveFailures: 0,
			lastTriggerAt: null,
		};
		await context.webhooks.save(webhook);
		response.json({ webhook: view(webhook) });
	});

	router.get(`${base}/:id`, (request, response) => {
		response.json({ webhook: view(own(requireIdentity(context, request), parameter(request, "id"))) });
	});

	router.post(`${base}/:id`, jsonBody, async (request, response) => {
		const identity = manager(requireIdentity(context, request));
		const before = own(identity, parameter(request, "id"));
		const body = parsedBody(bodySchema, request);
		const secret = body.secret === undefined || body.secret === null ? before.secret : body.secret || null;
		const after = { ...before, ...target(body, identity), ...fields(body), secret };
		await context.webhooks.save(after);
		response.json({ webhook: view(after) });
	});

	router.delete(`${base}/:id`, async (request, response) => {
		const webhook = own(manager(requireIdentity(context, request)), parameter(request, "id"));
		await context.webhooks.delete(webhook.id);
		response.json({});
	});

	for (const action of ["enable", "disable"] as const)
		router.post(`${base}/:id/${action}`, async (request, response) => {
			const before = own(manager(requireIdentity(context, request)), parameter(request, "id"));
			const after: Webhook = { ...before, disabled: action === "disable", consecutiveFailures: 0 };
			await context.webhooks.save(after);
			response.json({ webhook: view(after) });
		});

	router.post(`${base}/:id/replay/:log`, async (request, response) => {
		const webhook = own(manager(requireIdentity(context, request)), parameter(request, "id"));
		const status = await context.dispatcher.replay(webhook, parameter(request, "log"));
		if (status === null) throw new HubError(404, "There is no such delivery.");
		response.json({ status });
	});

	// The Hub shows its activity only on a page; here it is a route, newest first.
	router.get(`${base}/:id/activity`, (request, response) => {
		const webhook = own(requireIdentity(context, request), parameter(request, "id"));
		response.json([...context.webhooks.log(webhook.id)].reverse());
	});
	return router;
}
