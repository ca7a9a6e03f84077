import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Request, type Response, Router } from "express";
import { lfsPointer } from "../git-objects.ts";
import { type HubContext, openRepo, parameter, queryText, rest } from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { REPO_TYPES, type RepoType } from "../repo-store.ts";
import { splitRevision } from "../revisions.ts";

const IMAGES: Readonly<Record<string, string>> = {
	png: "image/png",
	jpg: "image/jpeg",
	jpeg: "image/jpeg",
	gif: "image/gif",
	webp: "image/webp",
};
const TEXT =
	/\.(md|txt|json|jsonl|ya?ml|toml|csv|py|js|ts|html|css|svg|xml|cfg|ini|sh|jinja|gitattributes|gitignore)$|(^|\/)(LICENSE|NOTICE)$/i;

/** Never a type that a browser would run: what people upload shares the origin with the pages. */
function contentType(path: string): string {
	const image = IMAGES[path.slice(path.lastIndexOf(".") + 1).toLowerCase()];
	return image ?? (TEXT.test(path) ? "text/plain; charset=utf-8" : "application/octet-stream");
}

const CDN_SECONDS = 3600;

type Range = { start: number; end: number };

/** The one byte range asked for; `null` for the whole; "unsatisfiable" when it lies past the end. */
export function requestedRange(header: string | undefined, size: number): Range | null | "unsatisfiable" {
	const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? "");
	if (match === null) return null;
	const [, from = "", to = ""] = match;
	if (from === "" && to === "") return null;
	if (from === "") {
		const start = Math.max(0, size - Number(to));
		return size === 0 || to === "0" ? "unsatisfiable" : { start, end: size - 1 };
	}
	const start = Number(from);
	const end = to === "" ? size - 1 : Math.min(Number(to), size - 1);
	if (to !== "" && Number(to) < start) return null;
	return start >= size ? "unsatisfiable" : { start, end };
}

/** Downloads: `resolve` gives contents, `raw` gives what git holds, which for LFS files is the pointer. Long, since both end in the same bytes. */
export function resolveRoutes(context: HubContext): Router {
	const router = Router();

	async function serve(request: Request, response: Response, type: RepoType, kind: "resolve" | "raw"): Promise<void> {
		const { repo } = openRepo(context, request, type, "content");
		const { commit, path, revision } = await splitRevision(context.repos, repo, rest(request));
		const entry = commit.files.get(path);
		response.set("X-Repo-Commit", commit.oid);
		if (entry === undefined)
			throw new HubError(404, `Entry not found: ${path} on ${revision}`, { code: "EntryNotFound" });
		response.set({
			"Accept-Ranges": "bytes",
			"Content-Security-Policy": "default-src 'none'; sandbox",
			"X-Content-Type-Options": "nosniff",
			"Content-Disposition": `inline; filename*=UTF-8''${encodeURIComponent(basename(path)).replaceAll("'", "%27")}`,
			"Content-Type": contentType(path),
		});
		const pointer = kind === "raw" && entry.lfs !== undefined ? lfsPointer(entry.lfs.oid, entry.lfs.size) : null;
		const etag = `"${pointer === null ? (entry.lfs?.oid ?? entry.oid) : entry.oid}"`;
		response.set("ETag", etag);
		if (kind === "resolve" && entry.lfs !== undefined) {
			response.set("X-Linked-Size", String(entry.lfs.size));
			response.set("X-Linked-ETag", etag);
		}
		if (request.headers["if-none-match"] === etag) {
			response.status(304).end();
			return;
		}
		if (pointer !== null) {
			response.set("Content-Length", String(Buffer.byteLength(pointer)));
			response.end(request.method === "HEAD" ? undefined : pointer);
			return;
		}
		const file = entry.lfs === undefined ? context.blobs.regularPath(entry.oid) : context.blobs.lfsPath(entry.lfs.oid);
		const cdn = entry.lfs === undefined ? null : context.cdnOrigin();
		if (cdn !== null) {
			const fields = [entry.lfs?.oid ?? "", basename(path)];
			const permission = context.signer.sign("cdn", fields, CDN_SECONDS);
			response.redirect(302, `${cdn}/__cdn/${entry.lfs?.oid ?? ""}?Signature=${permission}`);
			return;
		}
		await send(request, response, file, entry.size);
	}

	/** The bytes, or the range of them that was asked for. */
	async function send(request: Request, response: Response, file: string, size: number): Promise<void> {
		const range = requestedRange(request.headers.range, size);
		if (size === 0 && range !== null) {
			// the JavaScript client learns the size of an empty file from this and from nothing else
			response.status(206).set({ "Content-Range": "bytes 0-0/0", "Content-Length": "0" }).end();
			return;
		}
		if (range === "unsatisfiable") {
			response.status(416).set("Content-Range", `bytes */${size}`).json({ error: "Range not satisfiable" });
			return;
		}
		const { start, end } = range ?? { start: 0, end: size - 1 };
		if (range !== null) response.status(206).set("Content-Range", `bytes ${start}-${end}/${size}`);
		response.set("Content-Length", String(Math.max(0, end - start + 1)));
		if (request.method === "HEAD" || size === 0) {
			response.end();
			return;
		}
		try {
			await pipeline(createReadStream(file, { start, end, highWaterMark: 1 << 18 }), response);
		} catch (error) {
			// a client that hangs up in the middle is no fault of ours
			if (!response.destroyed) throw error;
		}
	}

	router.get("/__cdn/:oid", async (request, response) => {
		// The signature is the permission; storage that gets a token besides refuses it, and has seen it.
		if (request.headers.authorization !== undefined)
			throw new HubError(400, "Only one auth mechanism allowed: the signature in the address is one already.");
		const [oid = "", name = ""] = context.signer.verify("cdn", queryText(request, "Signature") ?? "") ?? [];
		const size = oid === parameter(request, "oid") ? await context.blobs.lfsSize(oid) : null;
		if (size === null) throw new HubError(403, "The address is not valid, or no longer.");
		response.set({
			"Accept-Ranges": "bytes",
			"Content-Security-Policy": "default-src 'none'; sandbox",
			"X-Content-Type-Options": "nosniff",
			"Content-Type": contentType(name),
			ETag: `"${oid}"`,
		});
		await send(request, response, context.blobs.lfsPath(oid), size);
	});

	for (const type of REPO_TYPES) {
		const prefix = type === "model" ? "" : `/${type}s`;
		for (const kind of ["resolve", "raw"] as const)
			router.get(`${prefix}/:ns/:name/${kind}/*rest`, (request, response) => serve(request, response, type, kind));
	}
	return router;
}
