import { createHash, randomUUID } from "node:crypto";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Router } from "express";
import { z } from "zod";
import { concatenated } from "../blob-store.ts";
import { readCommitBody } from "../commit-body.ts";
import { applyOperations, sameTree } from "../commit-operations.ts";
import type { Discussion } from "../discussion-store.ts";
import { publishDiscussion } from "../discussion-view.ts";
import { GIT_ATTRIBUTES_FILE, lfsTracker, withLfsPaths } from "../git-attributes.ts";
import type { FileTree } from "../git-objects.ts";
import {
	type HubContext,
	isAuthorOfPull,
	openRepo,
	parameter,
	parsedBody,
	publishRefs,
	queryFlag,
	rest,
	webPath,
	writerOf,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { checkedPath, newId } from "../identifiers.ts";
import { fullName, REPO_TYPES, type RefUpdate, type Repo } from "../repo-store.ts";
import { requestBytes, saveRequest } from "../request-bytes.ts";
import { findRevision, revisionOrThrow, writableRef } from "../revisions.ts";
import { xetHeaders, xetToken } from "../xet-token.ts";
import { jsonBody } from "./body-parsers.ts";

const OID = z.string().regex(/^[0-9a-f]{64}$/);
const preuploadSchema = z.object({
	files: z
		.array(z.object({ path: z.string(), size: z.number().int().nonnegative(), sample: z.string().default("") }))
		.max(1000),
	gitAttributes: z.string().nullish(),
	gitIgnore: z.string().nullish(),
});
const batchSchema = z.object({
	operation: z.enum(["upload", "download"]),
	transfers: z.array(z.string()).default(["basic"]),
	ref: z.object({ name: z.string() }).nullish(),
	objects: z.array(z.object({ oid: OID, size: z.number().int().nonnegative() })).max(1000),
});
const verifySchema = z.object({ oid: OID, size: z.number().int().nonnegative() });
const completeSchema = z.object({
	oid: OID,
	parts: z.array(z.object({ partNumber: z.number().int().min(1), etag: z.string() })).max(10_000),
});

const LFS_SIZE = 10 * 1024 * 1024;
const HREF_SECONDS = 6 * 3600;

function isBinary(sample: Buffer): boolean {
	return sample.includes(0);
}

/** A .gitignore pattern that is plain enough to honour: names, `*` and a trailing slash. */
function ignorePattern(line: string): RegExp | null {
	const text = line.trim();
	if (text === "" || text.startsWith("#") || text.startsWith("!") || !/^[A-Za-z0-9._/*-]+$/.test(text)) return null;
	const anchored = text.startsWith("/");
	const core = text
		.replace(/^\/|\/$/g, "")
		.replaceAll(".", "\\.")
		.replaceAll(/\*+/g, (stars) => (stars.length > 1 ? ".*" : "[^/]*"));
	return new RegExp(`${anchored ? "^" : "(^|/)"}${core}(/|$)`);
}

async function smallFile(context: HubContext, files: FileTree, path: string): Promise<string> {
	const entry = files.get(path);
	if (entry === undefined || entry.lfs !== undefined) return "";
	return (await context.blobs.readRegular(entry.oid)).toString("utf8");
}

/** The tree with the attributes that its new LFS files need, as the Hub adds them to a commit. */
async function withAttributes(context: HubContext, before: FileTree, after: FileTree): Promise<FileTree> {
	const added = [...after].filter(([path, entry]) => entry.lfs !== undefined && before.get(path)?.lfs === undefined);
	const text = await smallFile(context, after, GIT_ATTRIBUTES_FILE);
	const wanted = withLfsPaths(
		text,
		added.map(([path]) => path),
	);
	if (wanted === text) return after;
	const content = Buffer.from(wanted);
	const entry = { oid: await context.blobs.putRegular(content), size: content.byteLength };
	return new Map([...after, [GIT_ATTRIBUTES_FILE, entry]]);
}

type Outcome = { oid: string; pull: Discussion | null; updates: readonly RefUpdate[] };

async function commit(
	context: HubContext,
	repo: Repo,
	author: string,
	revision: string,
	createPull: boolean,
	body: Awaited<ReturnType<typeof readCommitBody>>,
): Promise<Outcome> {
	const { header, operations } = body;
	return context.repos.locked(repo, async () => {
		const head = await revisionOrThrow(context.repos, repo, revision);
		// a pull request may start at a commit; everything else needs a ref to move
		const target = createPull ? null : writableRef(repo, revision);
		const parent = header.parentCommit;
		if (parent !== null && parent !== head.oid) {
			const stale = createPull ? await findRevision(context.repos, repo, parent) : null;
			if (stale === null)
				throw new HubError(412, "A commit has happened since. Please refresh and try again.", {
					headers: { "X-Repo-Commit": head.oid },
				});
		}
		const from = parent !== null && createPull ? await revisionOrThrow(context.repos, repo, parent) : head;
		const applied = applyOperations(from.files, operations, (oid) => repo.lfs.get(oid)?.size ?? null);
		const files = await withAttributes(context, from.files, applied);
		if (target !== null && sameTree(from.files, files)) return { oid: head.oid, pull: null, updates: [] };
		const made = await context.repos.writeCommit(repo, {
			parents: [from.oid],
			author,
			title: header.summary.split("\n")[0] || "Update files",
			message: header.description,
			files,
		});
		const event = {
			id: newId(),
			author,
			createdAt: made.date,
			type: "commit" as const,
			subject: made.title,
			oid: made.oid,
		};
		if (target === null) {
			const num = context.discussions.nextNum(repo);
			const pull: Discussion = {
				id: newId(),
				num,
				title: made.title.slice(0, 200),
				status: "open",
				author,
				createdAt: made.date,
				pinned: false,
				locked: false,
				pull: { startedFrom: from.oid, mergeCommitId: null, refDeleted: false },
				events: [
					{
						id: newId(),
						type: "comment",
						author,
						createdAt: made.date,
						updatedAt: made.date,
						raw: header.description,
						editors: [author],
						numEdits: 0,
						hiddenBy: null,
					},
					event,
				],
			};
			await context.repos.setRefs(repo, { pulls: { ...repo.refs.pulls, [num]: made.oid } });
			await context.discussions.save(repo, pull);
			return { oid: made.oid, pull, updates: [{ ref: `refs/pr/${num}`, oldSha: null, newSha: made.oid }] };
		}
		const moved = { [target.name]: made.oid };
		await context.repos.setRefs(
			repo,
			target.kind === "branch"
				? { branches: { ...repo.refs.branches, ...moved } }
				: { pulls: { ...repo.refs.pulls, ...moved } },
		);
		if (target.kind === "pull") {
			const discussion = context.discussions.get(repo, Number(target.name));
			if (discussion !== null)
				await context.discussions.save(repo, { ...discussion, events: [...discussion.events, event] });
		}
		return { oid: made.oid, pull: null, updates: [{ ref: target.ref, oldSha: head.oid, newSha: made.oid }] };
	});
}

/** Preupload, LFS and commits: the three steps by which files come in. Long as a list of routes is: each handler stands alone. */
export function uploadRoutes(context: HubContext): Router {
	const router = Router();
	const { blobs, signer } = context;
	const multipart = join(blobs.temporaryDirectory, "multipart");

	for (const type of REPO_TYPES) {
		const base = `/api/${type}s/:ns/:name`;
		/** Anybody who may read may propose; a direct commit needs the right to write. */
		const open = (request: Parameters<typeof openRepo>[1]): { repo: Repo; author: string } => {
			const createPull = queryFlag(request, "create_pr");
			const { repo, identity } = openRepo(context, request, type, "read");
			const isOwnPull = isAuthorOfPull(context, repo, identity, rest(request).join("/"));
			if (!createPull && !isOwnPull) return { repo, author: writerOf(repo, identity).user.name };
			if (identity === null) throw new HubError(401, "Invalid username or password.");
			if (identity.token.role === "read") throw new HubError(403, "This token has no right to open pull requests.");
			return { repo, author: identity.user.name };
		};

		router.post(`${base}/preupload/*rest`, jsonBody, async (request, response) => {
			const { repo } = open(request);
			const head = await revisionOrThrow(context.repos, repo, rest(request).join("/"));
			const body = parsedBody(preuploadSchema, request);
			// What the commit itself brings is sent along; else the repo's own.
			const isTracked = lfsTracker(body.gitAttributes ?? (await smallFile(context, head.files, GIT_ATTRIBUTES_FILE)));
			const ignored = (body.gitIgnore ?? (await smallFile(context, head.files, ".gitignore")))
				.split("\n")
				.map(ignorePattern)
				.filter((pattern) => pattern !== null);
			response.json({
				files: body.files.map((file) => {
					const path = checkedPath(file.path);
					const lfs =
						file.size > 0 && (file.size > LFS_SIZE || isTracked(path) || isBinary(Buffer.from(file.sample, "base64")));
					const present = head.files.get(path);
					const oid = present === undefined ? undefined : (present.lfs?.oid ?? present.oid);
					return {
						path,
						uploadMode: lfs ? "lfs" : "regular",
						shouldIgnore: ignored.some((pattern) => pattern.test(path)),
						...(oid === undefined || (present?.lfs !== undefined) !== lfs ? {} : { oid }),
					};
				}),
				commitOid: head.oid,
			});
		});

		router.post(`${base}/commit/*rest`, async (request, response) => {
			const { repo, author } = open(request);
			const revision = rest(request).join("/");
			const createPull = queryFlag(request, "create_pr");
			const body = await readCommitBody(request, blobs);
			const { oid, pull, updates } = await commit(context, repo, author, revision, createPull, body);
			const web = `${context.origin()}/${webPath(repo)}`;
			if (pull !== null) {
				const opening = pull.events[0];
				await publishDiscussion(
					context,
					repo,
					{ action: "create", scope: "discussion" },
					pull,
					opening?.type === "comment" ? opening : null,
				);
			}
			if (updates.length > 0) await publishRefs(context, repo, updates);
			response.json({
				success: true,
				commitOid: oid,
				commitUrl: `${web}/commit/${oid}`,
				hookOutput: "",
				...(pull === null ? {} : { pullRequestUrl: `${web}/discussions/${pull.num}` }),
			});
		});

		router.post(
			`${type === "model" ? "" : `/${type}s`}/:ns/:repoGit/info/lfs/objects/batch`,
			jsonBody,
			async (request, response) => {
				request.params["name"] = parameter(request, "repoGit").replace(/\.git$/, "");
				const body = parsedBody(batchSchema, request);
				const { repo, identity } = openRepo(context, request, type, body.operation === "upload" ? "read" : "content");
				if (body.operation === "upload") {
					if (identity === null) throw new HubError(401, "Invalid username or password.");
					if (identity.token.role === "read") throw new HubError(403, "This token has no right to upload.");
				}
				// As the Hub does: whoever can do Xet is told to.
				const usesXet = body.operation === "upload" && body.transfers.includes("xet");
				const wantsMultipart = !usesXet && body.transfers.includes("multipart");
				let usesMultipart = false;
				const objects: unknown[] = [];
				for (const { oid, size } of body.objects) {
					if (body.operation === "download") {
						objects.push(
							repo.lfs.has(oid)
								? {
										oid,
										size,
										actions: {
											download: {
												href: `${context.origin()}/lfs/download/${signer.sign("download", [oid], HREF_SECONDS)}`,
											},
										},
									}
								: { oid, size, error: { code: 404, message: "Object does not exist" } },
						);
						continue;
					}
					if (repo.lfs.has(oid) && (await blobs.hasLfs(oid))) {
						objects.push({ oid, size });
						continue;
					}
					if (usesXet) {
						const prefix = `${context.origin()}/api/${type}s/${fullName(repo)}/xet-write-token`;
						const href = `${prefix}/${encodeURIComponent(body.ref?.name ?? "main")}`;
						objects.push({
							oid,
							size,
							actions: { upload: { href, header: xetHeaders(xetToken(context, repo.record.id, "write")) } },
						});
						continue;
					}
					const verify = {
						href: `${context.origin()}/lfs/verify/${signer.sign("verify", [repo.record.id, oid, String(size)], HREF_SECONDS)}`,
					};
					if (wantsMultipart && size > context.multipartThreshold) {
						usesMultipart = true;
						const upload = randomUUID();
						const parts = Math.ceil(size / context.multipartChunk);
						const header: Record<string, string> = { chunk_size: String(context.multipartChunk) };
						for (let part = 1; part <= parts; part++)
							header[String(part).padStart(5, "0")] =
								`${context.origin()}/lfs/part/${signer.sign("part", [upload, String(part), String(context.multipartChunk)], HREF_SECONDS)}`;
						const href = `${context.origin()}/lfs/complete/${signer.sign("complete", [repo.record.id, upload, oid, String(size), String(parts)], HREF_SECONDS)}`;
						objects.push({ oid, size, actions: { upload: { href, header }, verify } });
					} else {
						const href = `${context.origin()}/lfs/upload/${signer.sign("upload", [repo.record.id, oid, String(size)], HREF_SECONDS)}`;
						objects.push({ oid, size, actions: { upload: { href }, verify } });
					}
				}
				response
					.type("application/vnd.git-lfs+json")
					.send(JSON.stringify({ transfer: usesXet ? "xet" : usesMultipart ? "multipart" : "basic", objects }));
			},
		);
	}

	// The URLs below carry their own permission: clients send no Authorization to them.
	const signed = (purpose: string, text: string): readonly string[] => {
		const fields = signer.verify(purpose, text);
		if (fields === null) throw new HubError(403, "This upload URL is not valid or has expired.");
		return fields;
	};
	const repoById = (id: string | undefined): Repo => {
		const repo = id === undefined ? null : context.repos.byId(id);
		if (repo === null) throw new HubError(404, "Repository not found", { code: "RepoNotFound" });
		return repo;
	};

	router.put("/lfs/upload/:signed", async (request, response) => {
		const [id, oid = "", size = ""] = signed("upload", parameter(request, "signed"));
		const repo = repoById(id);
		await blobs.receiveLfs(requestBytes(request), { oid, size: Number(size) });
		await context.repos.registerLfs(repo, oid, Number(size));
		response.json({});
	});

	router.put("/lfs/part/:signed", async (request, response) => {
		const [upload = "", part = "", chunk = ""] = signed("part", parameter(request, "signed"));
		const folder = join(multipart, upload);
		await mkdir(folder, { recursive: true });
		const hash = createHash("md5");
		await saveRequest(request, join(folder, part), Number(chunk), "part", (piece) => hash.update(piece));
		response.set("ETag", `"${hash.digest("hex")}"`).json({});
	});

	router.post("/lfs/complete/:signed", jsonBody, async (request, response) => {
		const [id, upload = "", oid = "", size = "", parts = ""] = signed("complete", parameter(request, "signed"));
		const repo = repoById(id);
		const body = parsedBody(completeSchema, request);
		if (body.oid !== oid || body.parts.length !== Number(parts))
			throw new HubError(400, `The upload of ${oid} has ${parts} parts, ${body.parts.length} were named.`);
		const folder = join(multipart, upload);
		const paths: string[] = [];
		for (let part = 1; part <= Number(parts); part++) {
			const path = join(folder, String(part));
			if (!(await stat(path).catch(() => null))?.isFile()) throw new HubError(400, `Part ${part} was not uploaded.`);
			paths.push(path);
		}
		await blobs.receiveLfs(concatenated(paths), { oid, size: Number(size) });
		await context.repos.registerLfs(repo, oid, Number(size));
		await rm(folder, { recursive: true, force: true });
		response.json({});
	});

	router.post("/lfs/verify/:signed", jsonBody, async (request, response) => {
		const [id, oid = "", size = ""] = signed("verify", parameter(request, "signed"));
		const repo = repoById(id);
		const body = parsedBody(verifySchema, request);
		if (body.oid !== oid || body.size !== Number(size)) throw new HubError(422, "Not the object that was announced.");
		if (!repo.lfs.has(oid) || (await blobs.lfsSize(oid)) !== body.size)
			throw new HubError(404, "The object was not uploaded.");
		response.json({});
	});

	router.get("/lfs/download/:signed", (request, response) => {
		const [oid = ""] = signed("download", parameter(request, "signed"));
		response.type("application/octet-stream").sendFile(blobs.lfsPath(oid), { dotfiles: "allow" });
	});

	// parts of uploads that nobody completed: thrown away when a day old
	const sweep = setInterval(async () => {
		for (const name of await readdir(multipart).catch(() => [])) {
			const path = join(multipart, name);
			const age = context.clock.now().getTime() - ((await stat(path).catch(() => null))?.mtimeMs ?? 0);
			if (age > 24 * 3600_000) await rm(path, { recursive: true, force: true });
		}
	}, 3600_000);
	sweep.unref();
	return router;
}
