import { Router } from "express";
import { z } from "zod";
import { mayWriteNamespace } from "../accounts.ts";
import {
	type HubContext,
	openRepo,
	parsedBody,
	publish,
	repoSnapshot,
	requireIdentity,
	webPath,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { isRepoNamePart } from "../identifiers.ts";
import { REPO_TYPES } from "../repo-store.ts";
import { revisionOrThrow } from "../revisions.ts";
import { jsonBody } from "./body-parsers.ts";

const bodySchema = z.object({
	repository: z.string(),
	private: z.boolean().optional(),
	visibility: z.enum(["public", "private", "protected"]).optional(),
});

/** A repo copied to another name: its files as they are now, as one commit; the large ones are not stored twice. */
export function duplicateRoutes(context: HubContext): Router {
	const router = Router();
	for (const type of REPO_TYPES)
		router.post(`/api/${type}s/:ns/:name/duplicate`, jsonBody, async (request, response) => {
			const identity = requireIdentity(context, request);
			const { repo } = openRepo(context, request, type, "content");
			const body = parsedBody(bodySchema, request);
			const [namespace = "", name = "", more] = body.repository.split("/");
			if (more !== undefined || !isRepoNamePart(name)) throw new HubError(400, `Invalid repo id: ${body.repository}.`);
			if (!mayWriteNamespace(identity, namespace))
				throw new HubError(403, `You don't have the rights to create a ${type} under the namespace "${namespace}".`);
			const head = await revisionOrThrow(context.repos, repo, "main");
			const wanted = body.visibility === undefined ? body.private : body.visibility !== "public";
			const made = await context.repos.create({
				type,
				namespace,
				name,
				// A copy of what is hidden stays hidden, whatever is asked for.
				private: repo.record.private || (wanted ?? false),
				createdBy: identity.user.name,
				files: head.files,
			});
			for (const { lfs } of head.files.values())
				if (lfs !== undefined) await context.repos.registerLfs(made, lfs.oid, lfs.size);
			await publish(context, made, {
				event: { action: "create", scope: "repo" },
				repo: await repoSnapshot(context, made, { withHead: true }),
			});
			response.json({ url: `${context.origin()}/${webPath(made)}` });
		});
	return router;
}
