import { Router } from "express";
import { z } from "zod";
import { type HubContext, openRepo, parsedBody, publishRefs, rest, writerOf } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { checkedRefName } from "../identifiers.ts";
import { REPO_TYPES } from "../repo-store.ts";
import { revisionOrThrow, writableRef } from "../revisions.ts";
import { jsonBody } from "./body-parsers.ts";

const branchSchema = z.object({
	startingPoint: z.string().optional(),
	emptyBranch: z.boolean().optional(),
	overwrite: z.boolean().optional(),
});
const tagSchema = z.object({ tag: z.string(), message: z.string().nullish() });
const squashSchema = z.object({ message: z.string().max(500).nullish() });

function without(of: Readonly<Record<string, string>>, name: string): Record<string, string> {
	return Object.fromEntries(Object.entries(of).filter(([key]) => key !== name));
}

/** Branches, tags and squashing. Long as a list of routes is: each handler stands alone. */
export function refRoutes(context: HubContext): Router {
	const router = Router();
	for (const type of REPO_TYPES) {
		const base = `/api/${type}s/:ns/:name`;

		router.post(`${base}/branch/*rest`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "write");
			const author = writerOf(repo, identity).user.name;
			const body = parsedBody(branchSchema, request);
			const name = checkedRefName(rest(request).join("/"));
			const update = await context.repos.locked(repo, async () => {
				const before = Object.hasOwn(repo.refs.branches, name) ? repo.refs.branches[name] : undefined;
				if (before !== undefined && body.overwrite !== true)
					throw new HubError(409, `Reference already exists: refs/heads/${name}`);
				const target =
					body.emptyBranch === true
						? await context.repos.writeCommit(repo, {
								parents: [],
								author,
								title: "Initial commit",
								message: "",
								files: new Map(),
							})
						: await revisionOrThrow(context.repos, repo, body.startingPoint ?? "main");
				await context.repos.setRefs(repo, { branches: { ...repo.refs.branches, [name]: target.oid } });
				return { ref: `refs/heads/${name}`, oldSha: before ?? null, newSha: target.oid };
			});
			await publishRefs(context, repo, [update]);
			response.json({});
		});

		router.delete(`${base}/branch/*rest`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "write");
			const name = rest(request).join("/");
			if (name === "main") throw new HubError(403, "The main branch cannot be deleted.");
			const oldSha = await context.repos.locked(repo, async () => {
				const before = Object.hasOwn(repo.refs.branches, name) ? repo.refs.branches[name] : undefined;
				if (before === undefined)
					throw new HubError(404, `Reference does not exist: refs/heads/${name}`, { code: "RevisionNotFound" });
				await context.repos.setRefs(repo, { branches: without(repo.refs.branches, name) });
				return before;
			});
			await publishRefs(context, repo, [{ ref: `refs/heads/${name}`, oldSha, newSha: null }]);
			response.json({});
		});

		router.post(`${base}/tag/*rest`, jsonBody, async (request, response) => {
			const { repo } = openRepo(context, request, type, "write");
			const body = parsedBody(tagSchema, request);
			const name = checkedRefName(body.tag);
			const newSha = await context.repos.locked(repo, async () => {
				if (Object.hasOwn(repo.refs.tags, name)) throw new HubError(409, `Tag already exists: refs/tags/${name}`);
				const target = await revisionOrThrow(context.repos, repo, rest(request).join("/"));
				await context.repos.setRefs(repo, { tags: { ...repo.refs.tags, [name]: target.oid } });
				return target.oid;
			});
			await publishRefs(context, repo, [{ ref: `refs/tags/${name}`, oldSha: null, newSha }]);
			response.json({});
		});

		router.delete(`${base}/tag/*rest`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "write");
			const name = rest(request).join("/");
			const oldSha = await context.repos.locked(repo, async () => {
				const before = Object.hasOwn(repo.refs.tags, name) ? repo.refs.tags[name] : undefined;
				if (before === undefined) throw new HubError(404, `Tag does not exist: ${name}`, { code: "RevisionNotFound" });
				await context.repos.setRefs(repo, { tags: without(repo.refs.tags, name) });
				return before;
			});
			await publishRefs(context, repo, [{ ref: `refs/tags/${name}`, oldSha, newSha: null }]);
			response.json({});
		});

		router.post(`${base}/super-squash/*rest`, jsonBody, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "write");
			const author = writerOf(repo, identity).user.name;
			const body = parsedBody(squashSchema, request);
			const update = await context.repos.locked(repo, async () => {
				const target = writableRef(repo, rest(request).join("/"));
				const head = await revisionOrThrow(context.repos, repo, target.ref);
				const squashed = await context.repos.writeCommit(repo, {
					parents: [],
					author,
					title: body.message ?? `Super-squash branch '${target.name}' using local-hub`,
					message: "",
					files: head.files,
				});
				const refs = { [target.name]: squashed.oid };
				await context.repos.setRefs(
					repo,
					target.kind === "branch"
						? { branches: { ...repo.refs.branches, ...refs } }
						: { pulls: { ...repo.refs.pulls, ...refs } },
				);
				return { ref: target.ref, oldSha: head.oid, newSha: squashed.oid };
			});
			await publishRefs(context, repo, [update]);
			response.json({ commitId: update.newSha });
		});
	}
	return router;
}
