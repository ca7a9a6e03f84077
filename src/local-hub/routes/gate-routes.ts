import { Router } from "express";
import { z } from "zod";
import { type HubContext, openRepo, parameter, parsedBody, requireIdentity, webPath } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { type AccessRequest, REPO_TYPES, type Repo, requestIdOf } from "../repo-store.ts";
import { formBody, jsonBody } from "./body-parsers.ts";

const who = { user: z.string().nullish(), userId: z.string().nullish(), requestId: z.string().nullish() };
const handleSchema = z.object({
	...who,
	status: z.enum(["pending", "accepted", "rejected"]),
	rejectionReason: z.string().max(200).nullish(),
});
const grantSchema = z.object(who);

/** Asking for, granting and refusing access to gated repos. */
export function gateRoutes(context: HubContext): Router {
	const router = Router();

	const userName = (repo: Repo, body: z.infer<typeof grantSchema>): string => {
		if (body.requestId) {
			const asked = repo.record.access.find((one) => requestIdOf(repo, one.user) === body.requestId);
			if (asked === undefined) throw new HubError(404, "There is no such access request.");
			return asked.user;
		}
		const user = body.user
			? context.accounts.user(body.user)
			: body.userId
				? context.accounts.userById(body.userId)
				: null;
		if (user === null) throw new HubError(404, "User not found");
		return user.name;
	};

	const put = (repo: Repo, request: AccessRequest): Promise<void> =>
		context.repos.locked(repo, () =>
			context.repos.saveRecord(repo, {
				access: [...repo.record.access.filter((one) => one.user !== request.user), request],
			}),
		);

	for (const type of REPO_TYPES) {
		const prefix = type === "model" ? "" : `/${type}s`;
		router.post(`${prefix}/:ns/:name/ask-access`, jsonBody, formBody, async (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const identity = requireIdentity(context, request);
			if (repo.record.gated === false) throw new HubError(400, "This repo is not gated.");
			const at = context.clock.now().toISOString();
			const status = repo.record.gated === "auto" ? "accepted" : "pending";
			const before = repo.record.access.find((one) => one.user === identity.user.name);
			if (before === undefined) await put(repo, { user: identity.user.name, status, at });
			response.redirect(303, `/${webPath(repo)}`);
		});

		const base = `/api/${type}s/:ns/:name/user-access-request`;
		router.post(`${base}/:action`, jsonBody, async (request, response) => {
			const action = parameter(request, "action");
			const at = context.clock.now().toISOString();
			if (action === "cancel") {
				const { repo } = openRepo(context, request, type, "read");
				const { user } = requireIdentity(context, request);
				await context.repos.locked(repo, () =>
					context.repos.saveRecord(repo, {
						access: repo.record.access.filter((one) => one.user !== user.name || one.status !== "pending"),
					}),
				);
				response.json({});
				return;
			}
			const { repo, identity } = openRepo(context, request, type, "write");
			const by = identity?.user.name ?? "";
			if (action === "grant") {
				const user = userName(repo, parsedBody(grantSchema, request));
				if (repo.record.access.some((one) => one.user === user && one.status === "accepted"))
					throw new HubError(409, "The user already has access.");
				await put(repo, { user, status: "accepted", at, reviewedAt: at, by });
			} else if (action === "handle") {
				const body = parsedBody(handleSchema, request);
				const user = userName(repo, body);
				const before = repo.record.access.find((one) => one.user === user);
				if (before === undefined) throw new HubError(404, "The user did not ask for access.");
				await put(repo, { ...before, status: body.status, reviewedAt: at, by });
			} else throw new HubError(404, "Not found");
			response.json({});
		});
	}
	return router;
}
