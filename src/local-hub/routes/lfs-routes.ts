import { Router } from "express";
import { z } from "zod";
import {
	type HubContext,
	openRepo,
	parameter,
	parsedBody,
	publishRefs,
	queryText,
	requireIdentity,
	writerOf,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { type Commit, REPO_TYPES, type RefUpdate, type Repo } from "../repo-store.ts";
import { revisionOrThrow } from "../revisions.ts";
import { jsonBody } from "./body-parsers.ts";

const batchSchema = z.object({
	deletions: z.object({ sha: z.array(z.string()).min(1).max(1000), rewriteHistory: z.boolean().default(true) }),
});
const fileOid = (oid: string): string => oid.slice(0, 24);

/** The LFS objects of a repo: listed, and taken out of it for good. Long as a list of routes is: each stands alone. */
export function lfsRoutes(context: HubContext): Router {
	const router = Router();

	/** The commit and all before it without the objects; the same commit where they hold none. */
	async function withoutObjects(
		repo: Repo,
		oid: string,
		gone: ReadonlySet<string>,
		done: Map<string, string>,
	): Promise<string> {
		// Parents first, without recursion: histories are long.
		const waiting = [oid];
		for (let at = waiting.at(-1); at !== undefined; at = waiting.at(-1)) {
			const commit: Commit | null = done.has(at) ? null : await context.repos.commit(repo, at);
			const ahead = commit?.parents.filter((parent) => !done.has(parent)) ?? [];
			if (ahead.length > 0) {
				waiting.push(...ahead);
				continue;
			}
			waiting.pop();
			if (commit === null) {
				if (!done.has(at)) done.set(at, at);
				continue;
			}
			const files = new Map([...commit.files].filter(([, { lfs }]) => lfs === undefined || !gone.has(lfs.oid)));
			const parents = commit.parents.map((parent) => done.get(parent) ?? parent);
			const same =
				files.size === commit.files.size && parents.every((parent, index) => parent === commit.parents[index]);
			const { author, title, message } = commit;
			const kept = same ? commit : await context.repos.writeCommit(repo, { parents, author, title, message, files });
			done.set(at, kept.oid);
		}
		return done.get(oid) ?? oid;
	}

	async function remove(repo: Repo, named: readonly string[], rewrite: boolean): Promise<readonly RefUpdate[]> {
		const gone = new Set([...repo.lfs.keys()].filter((oid) => named.includes(oid) || named.includes(fileOid(oid))));
		if (gone.size === 0) throw new HubError(404, "There are no such LFS files.");
		const updates: RefUpdate[] = [];
		await context.repos.locked(repo, async () => {
			if (rewrite) {
				const done = new Map<string, string>();
				const { branches, tags, pulls } = repo.refs;
				const rewritten = async (prefix: string, refs: Readonly<Record<string, string>>) => {
					const after: Record<string, string> = {};
					for (const [name, oldSha] of Object.entries(refs)) {
						const newSha = await withoutObjects(repo, oldSha, gone, done);
						after[name] = newSha;
						if (newSha !== oldSha) updates.push({ ref: `${prefix}${name}`, oldSha, newSha });
					}
					return after;
				};
				await context.repos.setRefs(repo, {
					branches: await rewritten("refs/heads/", branches),
					tags: await rewritten("refs/tags/", tags),
					pulls: await rewritten("refs/pr/", pulls),
				});
			}
			await context.repos.forgetLfs(repo, gone);
		});
		return updates;
	}

	for (const type of REPO_TYPES) {
		const base = `/api/${type}s/:ns/:name/lfs-files`;

		router.get(base, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			writerOf(repo, identity ?? requireIdentity(context, request));
			const head = await revisionOrThrow(context.repos, repo, "main");
			const named = new Map([...head.files].map(([path, { lfs }]) => [lfs?.oid ?? "", path]));
			response.json(
				[...repo.lfs.values()].map((object) => ({
					fileOid: fileOid(object.oid),
					filename: named.get(object.oid) ?? object.oid,
					...(named.has(object.oid) ? { ref: "refs/heads/main" } : {}),
					oid: object.oid,
					size: object.size,
					pushedAt: object.pushedAt,
				})),
			);
		});

		router.post(`${base}/batch`, jsonBody, async (request, response) => {
			const { repo } = openRepo(context, request, type, "write");
			const { sha, rewriteHistory } = parsedBody(batchSchema, request).deletions;
			const updates = await remove(repo, sha, rewriteHistory);
			if (updates.length > 0) await publishRefs(context, repo, updates);
			response.json({});
		});

		router.delete(`${base}/:sha`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "write");
			const rewrite = queryText(request, "rewriteHistory") !== "false";
			const updates = await remove(repo, [parameter(request, "sha")], rewrite);
			if (updates.length > 0) await publishRefs(context, repo, updates);
			response.json({});
		});
	}
	return router;
}
