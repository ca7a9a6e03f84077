import { Router } from "express";
import { gitDiff, syncMirror } from "../git-mirror.ts";
import { type HubContext, openRepo, queryFlag, rest } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { REPO_TYPES } from "../repo-store.ts";
import { revisionOrThrow } from "../revisions.ts";

/** What changed between two revisions, `BASE..HEAD`, as git tells it. */
export function compareRoutes(context: HubContext): Router {
	const router = Router();
	for (const type of REPO_TYPES)
		router.get(`/api/${type}s/:ns/:name/compare/*rest`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const [base = "", head = "", more] = rest(request)
				.join("/")
				.split(/\.{2,3}/);
			if (base === "" || head === "" || more !== undefined)
				throw new HubError(400, "Compare two revisions: BASE..HEAD.");
			const [from, to] = [
				await revisionOrThrow(context.repos, repo, base),
				await revisionOrThrow(context.repos, repo, head),
			];
			const mirror = await context.repos.locked(repo, () => syncMirror(repo, context.repos, context.blobs));
			const diff = await gitDiff(mirror, from.oid, to.oid);
			if (queryFlag(request, "raw")) response.type("text/plain").send(diff);
			else response.json(diff);
		});
	return router;
}
