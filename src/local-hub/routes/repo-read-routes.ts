import { createHash } from "node:crypto";
import { type Request, type Response, Router } from "express";
import { z } from "zod";
import type { Identity } from "../accounts.ts";
import { treeObjects } from "../git-objects.ts";
import {
	type HubContext,
	identityOf,
	mayRead,
	openRepo,
	parameter,
	parsedBody,
	queryFlag,
	queryNumber,
	queryText,
	queryTexts,
	rest,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { userOverview } from "../people.ts";
import { type Commit, fullName, REPO_TYPES, type Repo, type RepoType, requestIdOf } from "../repo-store.ts";
import { history, lastCommits, lfsView, repoInfo } from "../repo-view.ts";
import { revisionOrThrow, splitRevision } from "../revisions.ts";
import { formBody, jsonBody } from "./body-parsers.ts";

const pathsSchema = z.object({
	paths: z.union([z.string(), z.array(z.string()).max(10_000)]),
	expand: z.union([z.boolean(), z.string()]).nullish(),
});

/** The absolute `Link` that clients follow for the next page; both stock clients accept no relative one. */
function nextLink(context: HubContext, request: Request, changes: Readonly<Record<string, string>>): string {
	const url = new URL(request.originalUrl, context.origin());
	for (const [name, value] of Object.entries(changes)) url.searchParams.set(name, value);
	return `<${url.href}>; rel="next"`;
}

function expansions(request: Request): readonly string[] {
	return queryTexts(request, "expand").flatMap((value) => value.split(","));
}

const EXPANDABLE: Readonly<Record<RepoType, ReadonlySet<string>>> = {
	model: new Set(
		"author baseModels cardData childrenModelCount config createdAt disabled downloads downloadsAllTime evalResults gated gguf inference inferenceProviderMapping lastModified library_name likes mask_token model-index pipeline_tag private resourceGroup safetensors sha siblings spaces tags transformersInfo trendingScore usedStorage widgetData xetEnabled securityRepoStatus".split(
			" ",
		),
	),
	dataset: new Set(
		"author cardData citation createdAt description disabled downloads downloadsAllTime gated lastModified likes mainSize paperswithcode_id private resourceGroup sha siblings tags trendingScore usedStorage xetEnabled".split(
			" ",
		),
	),
	space: new Set(
		"author cardData createdAt datasets disabled lastModified likes models private region resourceGroup runtime sdk sha siblings subdomain tags trendingScore usedStorage xetEnabled".split(
			" ",
		),
	),
};

/** The fields that a request names; one that the Hub does not know is refused there too. */
function repoExpansions(request: Request, type: RepoType): readonly string[] {
	const named = expansions(request);
	if (named.every((one) => EXPANDABLE[type].has(one))) return named;
	throw new HubError(400, `"expand" must be one of [${[...EXPANDABLE[type]].join(", ")}]`);
}

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 1e3, M: 1e6, B: 1e9, T: 1e12 };

/** `min:6B,max:128B`, either part alone too; `null`: not asked for. */
function parameterRange(text: string | null): { readonly least: number; readonly most: number } | null {
	if (text === null || text === "") return null;
	const range = { least: 0, most: Number.POSITIVE_INFINITY };
	for (const part of text.split(",")) {
		const [, bound, number = "", unit = ""] = /^(min|max):(\d+(?:\.\d+)?)([KMBT]?)$/i.exec(part.trim()) ?? [];
		const value = Number(number) * (UNITS[unit.toUpperCase()] ?? 1);
		if (bound === "min") range.least = value;
		else if (bound === "max") range.most = value;
		else
			throw new HubError(
				400,
				`"num_parameters" must be like min:6B,max:128B, not ${JSON.stringify(text.slice(0, 80))}.`,
			);
	}
	return range;
}

async function matching(
	context: HubContext,
	request: Request,
	type: RepoType,
	identity: Identity | null,
): Promise<{ repo: Repo; commit: Commit }[]> {
	const filters = [...queryTexts(request, "filter"), ...queryTexts(request, "tags")].flatMap((value) =>
		value.split(","),
	);
	const pipelineTag = queryText(request, "pipeline_tag");
	if (pipelineTag !== null) filters.push(pipelineTag);
	const author = queryText(request, "author");
	const search = queryText(request, "search")?.toLowerCase() ?? null;
	const gated = queryText(request, "gated");
	const parameters = parameterRange(queryText(request, "num_parameters"));
	const found: { repo: Repo; commit: Commit }[] = [];
	for (const repo of context.repos.all()) {
		if (repo.record.type !== type || !mayRead(repo, identity)) continue;
		if (author !== null && repo.record.namespace !== author) continue;
		if (search !== null && !fullName(repo).toLowerCase().includes(search)) continue;
		if (gated !== null && (gated === "true" || gated === "True") !== (repo.record.gated !== false)) continue;
		const commit = await context.repos.commit(repo, repo.refs.branches["main"] ?? "");
		if (commit === null) continue;
		if (filters.length > 0) {
			const { tags } = await context.facts(commit);
			if (!filters.every((filter) => tags.includes(filter))) continue;
		}
		if (parameters !== null) {
			const { safetensors, gguf } = await context.facts(commit);
			const total = safetensors?.total ?? Number(gguf?.["total"] ?? Number.NaN);
			if (!(total >= parameters.least && total <= parameters.most)) continue;
		}
		found.push({ repo, commit });
	}
	const sort = queryText(request, "sort") ?? "lastModified";
	const key = (repo: Repo): string =>
		sort === "createdAt"
			? repo.record.createdAt
			: sort === "likes"
				? String(repo.record.likes.length).padStart(9, "0")
				: repo.refs.lastModified;
	const sign = queryText(request, "direction") === "1" ? -1 : 1;
	found.sort(
		(a, b) => sign * key(b.repo).localeCompare(key(a.repo)) || fullName(a.repo).localeCompare(fullName(b.repo)),
	);
	return found;
}

/** JSON with a tag of its content: who asks with `If-None-Match` and has it already gets 304 without a body. */
function tagged(response: Response, body: unknown): void {
	const digest = createHash("sha256").update(JSON.stringify(body)).digest("base64url").slice(0, 27);
	response.set("ETag", `W/"${digest}"`).json(body);
}

/** Information, trees, commits, refs and search. Long as a list of routes is: each handler stands alone. */
export function repoReadRoutes(context: HubContext): Router {
	const router = Router();

	function requester(name: string): Record<string, unknown> {
		const user = context.accounts.user(name);
		if (user === null) return {};
		const { createdAt: _createdAt, ...overview } = userOverview(context, user, "");
		return { user: { ...overview, verifiedOrgNames: [] } };
	}

	for (const type of REPO_TYPES) {
		const api = `/api/${type}s`;
		const base = `${api}/:ns/:name`;

		router.get(api, async (request, response) => {
			const identity = identityOf(context, request);
			const all = await matching(context, request, type, identity);
			const limit = Math.max(1, queryNumber(request, "limit", 1000, 10_000));
			const start = queryNumber(request, "cursor", queryNumber(request, "skip", 0, 1e9), 1e9);
			const more = [
				...(queryFlag(request, "full") ? ["siblings"] : []),
				...(queryFlag(request, "config") ? ["config"] : []),
				...(queryFlag(request, "cardData") ? ["cardData"] : []),
			];
			const page = all.slice(start, start + limit);
			if (start + limit < all.length)
				response.set("Link", nextLink(context, request, { cursor: String(start + limit) }));
			tagged(
				response,
				await Promise.all(
					page.map(({ repo, commit }) =>
						repoInfo(context, repo, commit, { expand: repoExpansions(request, type), form: "list", more, identity }),
					),
				),
			);
		});

		const info = async (request: Request, revision: string): Promise<Record<string, unknown>> => {
			const { repo, identity } = openRepo(context, request, type, "read");
			const commit = await revisionOrThrow(context.repos, repo, revision);
			return repoInfo(context, repo, commit, {
				expand: repoExpansions(request, type),
				form: "detail",
				more: queryFlag(request, "securityStatus") ? ["securityRepoStatus"] : [],
				blobs: queryFlag(request, "blobs"),
				identity,
			});
		};
		router.get(base, async (request, response) => {
			tagged(response, await info(request, "HEAD"));
		});
		router.get(`${base}/revision/*rest`, async (request, response) => {
			tagged(response, await info(request, rest(request).join("/")));
		});

		router.get(`${base}/auth-check`, (request, response) => {
			openRepo(context, request, type, "content");
			response.json({});
		});
		router.get(`${base}/auth-check/write`, (request, response) => {
			openRepo(context, request, type, "write");
			response.json({});
		});

		router.get(`${base}/tree/*rest`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const { commit, path: raw } = await splitRevision(context.repos, repo, rest(request));
			const path = raw.replace(/\/$/, "");
			const expand = queryFlag(request, "expand");
			const recursive = queryFlag(request, "recursive");
			const prefix = path === "" ? "" : `${path}/`;
			const inside = (name: string): boolean =>
				name.startsWith(prefix) && (recursive || !name.slice(prefix.length).includes("/"));
			const { directories } = treeObjects(commit.files);
			if (path !== "" && !directories.some((directory) => directory.path === path))
				throw new HubError(404, `${path} does not exist on "${commit.oid}"`, {
					code: "EntryNotFound",
					headers: { "X-Repo-Commit": commit.oid },
				});
			const entries: Record<string, unknown>[] = [
				...directories
					.filter((directory) => inside(directory.path))
					.map((directory) => ({ type: "directory", oid: directory.oid, size: 0, path: directory.path })),
				...[...commit.files]
					.filter(([name]) => inside(name))
					.sort(([a], [b]) => (a < b ? -1 : 1))
					.map(([name, entry]) => ({ type: "file", oid: entry.oid, size: entry.size, path: name, ...lfsView(entry) })),
			];
			const most = expand ? 100 : 1000;
			const limit = Math.max(1, queryNumber(request, "limit", most, most));
			const start = queryNumber(request, "cursor", 0, 1e9);
			const page = entries.slice(start, start + limit);
			if (start + limit < entries.length)
				response.set("Link", nextLink(context, request, { cursor: String(start + limit) }));
			if (expand) {
				const last = await lastCommits(
					context,
					repo,
					commit,
					page.map((entry) => String(entry["path"])),
				);
				for (const entry of page) {
					const by = last.get(String(entry["path"]));
					if (by !== undefined) entry["lastCommit"] = { id: by.oid, title: by.title, date: by.date };
				}
			}
			response.set("X-Repo-Commit", commit.oid).json(page);
		});

		router.post(`${base}/paths-info/*rest`, jsonBody, formBody, async (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const commit = await revisionOrThrow(context.repos, repo, rest(request).join("/"));
			const body = parsedBody(pathsSchema, request);
			const paths = (typeof body.paths === "string" ? [body.paths] : body.paths).map((path) => path.replace(/\/$/, ""));
			const { directories } = treeObjects(commit.files);
			const expand = body.expand === true || body.expand === "true" || body.expand === "True";
			const last = expand ? await lastCommits(context, repo, commit, paths) : new Map<string, Commit>();
			const found: Record<string, unknown>[] = [];
			for (const path of paths) {
				const by = last.get(path);
				const lastCommit = by === undefined ? {} : { lastCommit: { id: by.oid, title: by.title, date: by.date } };
				const entry = commit.files.get(path);
				const directory = directories.find((one) => one.path === path);
				if (entry !== undefined)
					found.push({ type: "file", oid: entry.oid, size: entry.size, path, ...lfsView(entry), ...lastCommit });
				else if (directory !== undefined)
					found.push({ type: "directory", oid: directory.oid, size: 0, path, ...lastCommit });
			}
			response.json(found);
		});

		router.get(`${base}/treesize/*rest`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const { commit, path } = await splitRevision(context.repos, repo, rest(request));
			let size = 0;
			for (const [name, entry] of commit.files)
				if (path === "" || name === path || name.startsWith(`${path}/`)) size += entry.size;
			response.json({ path: `/${path}`, size });
		});

		router.get(`${base}/commits/*rest`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const commit = await revisionOrThrow(context.repos, repo, rest(request).join("/"));
			const all = await history(context, repo, commit);
			const limit = Math.max(1, queryNumber(request, "limit", 50, 1000));
			const page = queryNumber(request, "p", 0, 1e6);
			const formatted = expansions(request).includes("formatted");
			if ((page + 1) * limit < all.length) response.set("Link", nextLink(context, request, { p: String(page + 1) }));
			response.set("X-Total-Count", String(all.length)).json(
				all.slice(page * limit, (page + 1) * limit).map((one) => ({
					id: one.oid,
					title: one.title,
					message: one.message,
					authors: [{ user: one.author }],
					date: one.date,
					...(formatted ? { formatted: { title: one.title, message: one.message } } : {}),
				})),
			);
		});

		router.get(`${base}/refs`, (request, response) => {
			const { repo } = openRepo(context, request, type, "read");
			const list = (refs: Readonly<Record<string, string>>, prefix: string): unknown[] =>
				Object.entries(refs).map(([name, targetCommit]) => ({ name, ref: `${prefix}${name}`, targetCommit }));
			response.json({
				branches: list(repo.refs.branches, "refs/heads/"),
				converts: [],
				tags: list(repo.refs.tags, "refs/tags/"),
				...(queryFlag(request, "include_prs") ? { pullRequests: list(repo.refs.pulls, "refs/pr/") } : {}),
			});
		});

		router.get(`${base}/scan`, (request, response) => {
			openRepo(context, request, type, "read");
			response.json({ scansDone: true, filesWithIssues: [] });
		});

		router.get(`${base}/user-access-request/:status`, (request, response) => {
			const { repo } = openRepo(context, request, type, "write");
			const status = parameter(request, "status");
			response.json(
				repo.record.access
					.filter((one) => one.status === status)
					.map((one) => ({
						...requester(one.user),
						requestId: requestIdOf(repo, one.user),
						status: one.status,
						timestamp: one.at,
						...(one.reviewedAt === undefined ? {} : { reviewedAt: one.reviewedAt }),
					})),
			);
		});
	}
	return router;
}
