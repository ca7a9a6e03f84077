import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Request, Router } from "express";
import {
	type HubContext,
	isAuthorOfPull,
	openRepo,
	parameter,
	queryFlag,
	queryText,
	rest,
	writerOf,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { REPO_TYPES, type Repo } from "../repo-store.ts";
import { requestBytes, saveRequest } from "../request-bytes.ts";
import { findRevision, revisionOrThrow } from "../revisions.ts";
import { findXetFile, saveXetFile, type XetFile } from "../xet-files.ts";
import { parseShard, type ShardFile } from "../xet-shard.ts";
import { casPath, xetHeaders, xetToken } from "../xet-token.ts";
import { openXorb, type Xorb } from "../xet-xorb.ts";
import { requestedRange } from "./resolve-routes.ts";

const LARGEST_XORB = 96 * 1024 * 1024;
const LARGEST_SHARD = 128 * 1024 * 1024;

const FETCH_SECONDS = 3600;

/**
 * As much of Xet's content-addressed store as stock clients need: they take xorbs and a shard here, and each file that
 * the shard describes is put together and kept as a plain LFS object. Downloads of repos never use Xet; those of buckets
 * know nothing else, and get the xorbs' own bytes. Long as a list of routes is: each handler stands alone.
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
			const token = xetToken(context, repo.record.id, "write");
			response.set(xetHeaders(token)).json(token);
		});
		router.get(`/api/${type}s/:ns/:name/xet-read-token/*rest`, async (request, response) => {
			const { repo } = openRepo(context, request, type, "content");
			const revision = rest(request).join("/");
			if (revision !== "None") await revisionOrThrow(context.repos, repo, revision);
			const token = xetToken(context, repo.record.id, "read");
			response.set(xetHeaders(token)).json(token);
		});
	}

	/** What an address and its token are for: the content of a repo, or of a bucket. */
	type Place = { readonly directory: string; readonly repo: Repo | null };

	function target(request: Request, ...accesses: readonly ("read" | "write")[]): Place {
		const header = request.headers.authorization ?? "";
		const token = header.startsWith("Bearer ") ? header.slice(7) : "";
		const fields = accesses.map((access) => signer.verify(`xet-${access}`, token)).find((one) => one !== null) ?? null;
		const id = parameter(request, "repo");
		if (fields === null || fields[0] !== id) throw new HubError(401, "The Xet token is not valid here.");
		const repo = context.repos.byId(id);
		const directory = repo?.directory ?? context.buckets.byId(id)?.directory;
		if (directory === undefined) throw new HubError(404, "Repository not found", { code: "RepoNotFound" });
		return { directory, repo };
	}

	/** The content's terms from the one that holds the first wanted byte to the one with the last. */
	router.get(`${cas}/:repo/v1/reconstructions/:hash`, async (request, response) => {
		const { directory } = target(request, "read", "write");
		const file = await findXetFile(directory, parameter(request, "hash"));
		if (file === null) throw new HubError(404, "This content is not here.");
		const wanted = requestedRange(request.headers.range, file.size);
		if (wanted === "unsatisfiable") throw new HubError(416, "The range lies past the end.");
		const { start, end } = wanted ?? { start: 0, end: file.size - 1 };
		const terms: XetFile["terms"] = [];
		let offset = 0;
		let skipped = 0;
		for (const term of file.terms) {
			if (offset + term.unpackedLength > start && offset <= end) {
				if (terms.length === 0) skipped = start - offset;
				terms.push(term);
			}
			offset += term.unpackedLength;
		}
		const fetchInfo: Record<string, unknown[]> = {};
		for (const { xorb: hash, chunkStart, chunkEnd } of terms) {
			const xorb = await openXorb(join(directory, "xorbs", hash));
			try {
				const permission = signer.sign("xet-bytes", [parameter(request, "repo"), hash], FETCH_SECONDS);
				fetchInfo[hash] ??= [];
				fetchInfo[hash].push({
					range: { start: chunkStart, end: chunkEnd },
					url: `${context.origin()}${cas}/${parameter(request, "repo")}/bytes/${hash}?Signature=${permission}`,
					url_range: xorb.bytesOf(chunkStart, chunkEnd),
				});
			} finally {
				await xorb.close();
			}
		}
		response.json({
			offset_into_first_range: skipped,
			terms: terms.map(({ xorb, unpackedLength, chunkStart, chunkEnd }) => ({
				hash: xorb,
				unpacked_length: unpackedLength,
				range: { start: chunkStart, end: chunkEnd },
			})),
			fetch_info: fetchInfo,
		});
	});

	router.get(`${cas}/:repo/bytes/:hash`, async (request, response) => {
		const [id, hash = ""] = signer.verify("xet-bytes", queryText(request, "Signature") ?? "") ?? [];
		const directory = id === undefined ? undefined : (context.repos.byId(id) ?? context.buckets.byId(id))?.directory;
		if (directory === undefined || id !== parameter(request, "repo") || hash !== parameter(request, "hash"))
			throw new HubError(403, "The address is not valid, or no longer.");
		const path = join(directory, "xorbs", hash);
		const { size } = await stat(path);
		const range = requestedRange(request.headers.range, size);
		if (range === "unsatisfiable") throw new HubError(416, "The range lies past the end.");
		const { start, end } = range ?? { start: 0, end: size - 1 };
		if (range !== null) response.status(206).set("Content-Range", `bytes ${start}-${end}/${size}`);
		response.set("Content-Length", String(end - start + 1));
		await pipeline(createReadStream(path, { start, end }), response);
	});

	router.get(`${cas}/:repo/v1/chunks/:prefix/:hash`, (request) => {
		target(request, "write");
		throw new HubError(404, "No chunk is known beyond those of the session.");
	});

	router.post(`${cas}/:repo/v1/xorbs/:prefix/:hash`, async (request, response) => {
		const { directory } = target(request, "write");
		const hash = parameter(request, "hash");
		if (!/^[0-9a-f]{64}$/.test(hash)) throw new HubError(400, "Not a xorb hash.");
		const path = join(directory, "xorbs", hash);
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

	async function* content(directory: string, file: ShardFile, xorbs: Map<string, Xorb>): AsyncGenerator<Uint8Array> {
		for (const term of file.terms) {
			let xorb = xorbs.get(term.xorb);
			if (xorb === undefined) {
				xorb = await openXorb(join(directory, "xorbs", term.xorb)).catch(() => {
					throw new HubError(400, `The shard names the xorb ${term.xorb}, which was not uploaded.`);
				});
				xorbs.set(term.xorb, xorb);
			}
			yield* xorb.chunks(term.chunkStart, term.chunkEnd);
		}
	}

	router.post(`${cas}/:repo/v1/shards`, async (request, response) => {
		const { directory, repo } = target(request, "write");
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
				if ((await findXetFile(directory, file.hash)) !== null) continue;
				const size = file.terms.reduce((sum, term) => sum + term.unpackedLength, 0);
				const stored = await blobs.receiveLfs(content(directory, file, xorbs), { oid: file.sha256, size });
				if (repo !== null) await context.repos.registerLfs(repo, stored.oid, stored.size);
				await saveXetFile(directory, file.hash, { sha256: stored.oid, size: stored.size, terms: [...file.terms] });
			}
		} finally {
			for (const xorb of xorbs.values()) await xorb.close();
		}
		response.json({ result: 1 });
	});
	return router;
}
