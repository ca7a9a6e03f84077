import { type Request, type Response, Router } from "express";
import { z } from "zod";
import { isMemberOf } from "../accounts.ts";
import { type HubContext, parameter, requireIdentity } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { fullName, REPO_TYPES } from "../repo-store.ts";

const querySchema = z.object({
	search: z.string().optional(),
	type: z.enum([...REPO_TYPES, "bucket", "kernel"]).optional(),
	limit: z.coerce.number().int().min(1).optional(),
	sort: z.enum(["storage", "updatedAt"]).default("storage"),
	direction: z.enum(["asc", "desc"]).default("desc"),
});

/** The repos of an account or an organization with the storage that each uses. */
export function storageRoutes(context: HubContext): Router {
	const router = Router();

	async function list(request: Request, response: Response, namespace: string): Promise<void> {
		const query = querySchema.safeParse(request.query);
		if (!query.success) throw new HubError(400, z.prettifyError(query.error));
		const { search, type, limit, sort, direction } = query.data;
		const owned = context.repos.all().filter(({ record }) => record.namespace === namespace);
		const rows = await Promise.all(
			owned.map(async (repo) => {
				const commit = await context.repos.commit(repo, repo.refs.branches["main"] ?? "");
				return {
					id: fullName(repo),
					type: repo.record.type,
					updatedAt: repo.refs.lastModified,
					visibility: repo.record.private ? ("private" as const) : ("public" as const),
					storage: commit === null ? 0 : (await context.facts(commit)).usedStorage,
				};
			}),
		);
		const total = rows.reduce((sum, row) => sum + row.storage, 0);
		const found = rows
			.filter((row) => type === undefined || row.type === type)
			.filter((row) => search === undefined || row.id.toLowerCase().includes(search.toLowerCase()))
			.sort((one, other) =>
				sort === "storage" ? one.storage - other.storage : one.updatedAt.localeCompare(other.updatedAt),
			);
		if (direction === "desc") found.reverse();
		response.json(
			found.slice(0, limit).map((row) => ({ ...row, storagePercent: total === 0 ? 0 : (100 * row.storage) / total })),
		);
	}

	router.get("/api/settings/repositories", async (request, response) => {
		await list(request, response, requireIdentity(context, request).user.name);
	});
	router.get("/api/organizations/:name/settings/repositories", async (request, response) => {
		const identity = requireIdentity(context, request);
		const name = parameter(request, "name");
		if (context.accounts.organization(name) === null) throw new HubError(404, "Organization not found");
		if (!isMemberOf(identity, name)) throw new HubError(403, `You are not a member of ${name}.`);
		await list(request, response, name);
	});
	return router;
}
