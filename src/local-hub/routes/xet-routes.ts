import { randomUUID } from "node:crypto";
import { rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Request, Router } from "express";
import { type HubContext, isAuthorOfPull, openRepo, parameter, queryFlag, rest, writerOf } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { REPO_TYPES, type Repo } from "../repo-store.ts";
import { requestBytes, saveRequest } from "../request-bytes.ts";
import { findRevision } from "../revisions.ts";
import { parseShard, type ShardFile } from "../xet-shard.ts";
import { casPath, xetHeaders, xetWriteToken } from "../xet-token.ts";
import { openXorb, type Xorb } from "../xet-xorb.ts";

const LARGEST_XORB = 96 * 1024 * 1024;
const LARGEST_SHARD = 128 * 1024 * 1024;

/**
 * As much of Xet's content-addressed store as stock clients need to upload: they take xorbs and a shard here,
 * and each file that the shard describes is put together and kept as a plain LFS object. Downloads never use Xet.
 */
export function xetRoutes(context: HubContext): Router {
	const router = Router();
	const { blobs, signer } = context;
	const cas = casPath(context);

	for (const type of REPO_TYPES) {
		router.get(`/api/${type}s/:ns/:name/xet-write-token/*rest`, async (request, response) => {
			const { repo, identity } = openRepo(context, request, type, "read");
			if (identity === null) throw new HubError(401, "Invalid username or password.");
			const revision = rest(request).join("/");
			const isOwnPull = isAuthorOfPull(context, repo, identity, revision);
			if (!queryFlag(request, "create_pr") && !isOwnPull) writerOf(repo, identity);
			if (revision !== "None" && (await findRevision(context.repos, repo, revision)) === null)
				throw new HubError(404, `Invalid rev id: ${revision}`, { code: "RevisionNotFound" });
			const { casUrl, exp, accessToken } = xetWriteToken(context, repo);
			response.set(xetHeaders({ casUrl, exp, accessToken }));
			response.json({ casUrl, exp, accessToken });
		});
	}

	function target(request: Request): Repo {
		const header = request.headers.authorization ?? "";
		const fields = header.startsWith("Bearer ") ? signer.verify("xet-write", header.slice(7)) : null;
		const id = parameter(request, "repo");
		if (fields === null || fields[0] !== id) throw new HubError(401, "The Xet token is not valid here.");
		const repo = context.repos.byId(id);
		if (repo === null) throw new HubError(404, "Repository not found", { code: "RepoNotFound" });
		return repo;
	}

	router.get(`${cas}/:repo/v1/chunks/:prefix/:hash`, (request) => {
		target(request);
		throw new HubError(404, "No chunk is known beyond those of the session.");
	});

	router.post(`${cas}/:repo/v1/xorbs/:prefix/:hash`, async (request, response) => {
		const repo = target(request);
		const hash = parameter(request, "hash");
		if (!/^[0-9a-f]{64}$/.test(hash)) throw new HubError(400, "Not a xorb hash.");
		const path = join(repo.directory, "xorbs", hash);
		const known = await stat(path).catch(() => null);
		const temporary = join(blobs.temporaryDirectory, randomUUID());
		try {
			await saveRequest(request, temporary, LARGEST_XORB, "xorb");
			await rename(temporary, path);
		} finally {
			await rm(temporary, { force: true });
		}
		response.json({ was_inserted: known === null });
	});

	async function* content(repo: Repo, file: ShardFile, xorbs: Map<string, Xorb>): AsyncGenerator<Uint8Array> {
		for (const term of file.terms) {
			let xorb = xorbs.get(term.xorb);
			if (xorb === undefined) {
				xorb = await openXorb(join(repo.directory, "xorbs", term.xorb)).catch(() => {
					throw new HubError(400, `The shard names the xorb ${term.xorb}, which was not uploaded.`);
				});
				xorbs.set(term.xorb, xorb);
			}
			yield* xorb.chunks(term.chunkStart, term.chunkEnd);
		}
	}

	router.post(`${cas}/:repo/v1/shards`, async (request, response) => {
		const repo = target(request);
		const pieces: Buffer[] = [];
		let length = 0;
		for await (const piece of requestBytes(request)) {
			length += piece.byteLength;
			if (length > LARGEST_SHARD) throw new HubError(413, "The shard is too large.");
			pieces.push(piece);
		}
		const xorbs = new Map<string, Xorb>();
		try {
			for (const file of parseShard(Buffer.concat(pieces))) {
				if (file.sha256 !== null && repo.lfs.has(file.sha256)) continue;
				const size = file.terms.reduce((sum, term) => sum + term.unpackedLength, 0);
				const stored = await blobs.receiveLfs(content(repo, file, xorbs), { oid: file.sha256, size });
				await context.repos.registerLfs(repo, stored.oid, stored.size);
			}
		} finally {
			for (const xorb of xorbs.values()) await xorb.close();
		}
		response.json({ result: 1 });
	});
	return router;
}
