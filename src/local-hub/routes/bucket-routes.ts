import { createReadStream } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import express, { type Request, Router } from "express";
import { z } from "zod";
import { isMemberOf, mayWriteNamespace } from "../accounts.ts";
import type { Bucket, BucketFile } from "../bucket-store.ts";
import {
	type HubContext,
	identityOf,
	parameter,
	parsedBody,
	queryFlag,
	queryText,
	requireIdentity,
	rest,
} from "../hub-context.ts";
import { HubError } from "../hub-error.ts";
import { checkedPath, isRepoNamePart } from "../identifiers.ts";
import { findXetFile, saveXetFile } from "../xet-files.ts";
import { xetHeaders, xetToken } from "../xet-token.ts";
import { jsonBody } from "./body-parsers.ts";

const createSchema = z.object({
	private: z.boolean().nullish(),
	visibility: z.enum(["public", "private"]).nullish(),
});
const pathsSchema = z.object({ paths: z.union([z.array(z.string()), z.string()]) });
const operationSchema = z.discriminatedUnion("type", [
	z.object({
		type: z.literal("addFile"),
		path: z.string(),
		xetHash: z.string(),
		mtime: z.union([z.number(), z.string()]).nullish(),
		contentType: z.string().optional(),
	}),
	z.object({ type: z.literal("deleteFile"), path: z.string() }),
	z.object({
		type: z.literal("copyFile"),
		path: z.string(),
		xetHash: z.string(),
		sourceRepoType: z.string(),
		sourceRepoId: z.string(),
		mtime: z.union([z.number(), z.string()]).nullish(),
		contentType: z.string().optional(),
	}),
]);

/**
 * Buckets in their simple form: made, filled and read over Xet, listed, emptied. Repos' files are not copied
 * into one by reference. Long as a list of routes is: each handler stands alone.
 */
export function bucketRoutes(context: HubContext): Router {
	const router = Router();
	const base = "/api/buckets/:ns/:name";

	function url({ record }: Bucket): string {
		return `${context.origin()}/buckets/${record.namespace}/${record.name}`;
	}

	function namespaceOf(request: Request): string {
		const named = parameter(request, "ns");
		return named === "me" ? requireIdentity(context, request).user.name : named;
	}

	function open(request: Request, access: "read" | "write"): Bucket {
		const identity = identityOf(context, request);
		const namespace = namespaceOf(request);
		const bucket = context.buckets.find(namespace, parameter(request, "name"));
		const member = identity !== null && isMemberOf(identity, namespace);
		if (bucket === null || (bucket.record.private && !member))
			throw new HubError(identity === null ? 401 : 404, "Bucket not found", { code: "RepoNotFound" });
		if (access === "write" && (identity === null || !mayWriteNamespace(identity, namespace)))
			throw new HubError(403, `You don't have the rights to write to the bucket ${namespace}/${bucket.record.name}.`);
		return bucket;
	}

	function view({ record }: Bucket): Record<string, unknown> {
		const files = Object.values(record.files);
		return {
			repoType: "bucket",
			id: `${record.namespace}/${record.name}`,
			author: record.namespace,
			private: record.private,
			createdAt: record.createdAt,
			updatedAt: record.updatedAt,
			size: files.reduce((sum, file) => sum + file.size, 0),
			totalFiles: files.length,
			cdnRegions: [],
		};
	}

	/** Brings what another bucket has under this hash; what cannot be read from there is not brought. */
	async function copyContent(
		request: Request,
		bucket: Bucket,
		from: { readonly xetHash: string; readonly sourceRepoType: string; readonly sourceRepoId: string },
	): Promise<void> {
		const [namespace = "", name = ""] = from.sourceRepoId.split("/");
		const source = from.sourceRepoType === "bucket" ? context.buckets.find(namespace, name) : null;
		const identity = identityOf(context, request);
		if (source === null || (source.record.private && (identity === null || !isMemberOf(identity, namespace)))) return;
		const content = await findXetFile(source.directory, from.xetHash);
		if (content === null) return;
		for (const xorb of new Set(content.terms.map((term) => term.xorb)))
			await copyFile(join(source.directory, "xorbs", xorb), join(bucket.directory, "xorbs", xorb));
		await saveXetFile(bucket.directory, from.xetHash, content);
	}

	const fileView = (path: string, file: BucketFile): Record<string, unknown> => ({ type: "file", path, ...file });

	router.get("/api/buckets/:ns", (request, response) => {
		const identity = identityOf(context, request);
		const namespace = namespaceOf(request);
		const member = identity !== null && isMemberOf(identity, namespace);
		const search = queryText(request, "search") ?? "";
		response.json(
			context.buckets
				.of(namespace)
				.filter(({ record }) => (member || !record.private) && record.name.includes(search))
				.map(view),
		);
	});

	router.post(base, jsonBody, async (request, response) => {
		const identity = requireIdentity(context, request);
		const namespace = namespaceOf(request);
		const name = parameter(request, "name");
		if (!isRepoNamePart(name)) throw new HubError(400, "Invalid bucket name.");
		if (!mayWriteNamespace(identity, namespace))
			throw new HubError(403, `You don't have the rights to create a bucket under the namespace "${namespace}".`);
		const body = parsedBody(createSchema, request);
		const taken = context.buckets.find(namespace, name);
		if (taken !== null)
			throw new HubError(409, "You already created this bucket", { body: { url: url(taken), id: taken.record.id } });
		const hidden =
			body.visibility === undefined || body.visibility === null ? body.private : body.visibility === "private";
		const made = await context.buckets.create({ namespace, name, private: hidden ?? false });
		response.json({ url: url(made), name: `${namespace}/${name}`, id: made.record.id });
	});
	router.get(base, (request, response) => {
		response.json(view(open(request, "read")));
	});
	router.delete(base, async (request, response) => {
		await context.buckets.delete(open(request, "write"));
		response.json({});
	});
	router.put(`${base}/settings`, jsonBody, async (request, response) => {
		const bucket = open(request, "write");
		const body = parsedBody(z.object({ private: z.boolean().nullish() }), request);
		await context.buckets.change(bucket, (before) => ({ private: body.private ?? before.private }));
		response.json({ private: bucket.record.private, cdnRegions: [] });
	});

	for (const access of ["read", "write"] as const)
		router.get(`${base}/xet-${access}-token`, (request, response) => {
			const token = xetToken(context, open(request, access).record.id, access);
			response.set(xetHeaders(token)).json(token);
		});

	for (const path of [`${base}/tree`, `${base}/tree/*rest`])
		router.get(path, (request, response) => {
			const { files } = open(request, "read").record;
			const prefix = rest(request).join("/").replace(/\/$/, "");
			const recursive = queryFlag(request, "recursive");
			const start = prefix === "" || files[prefix] !== undefined ? prefix : `${prefix}/`;
			const folders = new Map<string, string>();
			const shown: Record<string, unknown>[] = [];
			for (const [name, file] of Object.entries(files).sort(([one], [other]) => (one < other ? -1 : 1))) {
				if (!name.startsWith(start)) continue;
				const slash = name.indexOf("/", start.length);
				if (!recursive && slash >= 0) folders.set(name.slice(0, slash), file.uploadedAt);
				else shown.push(fileView(name, file));
			}
			const directories = [...folders].map(([name, uploadedAt]) => ({ type: "directory", path: name, uploadedAt }));
			response.json([...directories, ...shown]);
		});

	router.post(`${base}/paths-info`, jsonBody, (request, response) => {
		const { files } = open(request, "read").record;
		const { paths } = parsedBody(pathsSchema, request);
		response.json(
			(typeof paths === "string" ? [paths] : paths).flatMap((path) => {
				const file = Object.hasOwn(files, path) ? files[path] : undefined;
				return file === undefined ? [] : [fileView(path, file)];
			}),
		);
	});

	router.post(`${base}/batch`, express.text({ type: () => true, limit: "8mb" }), async (request, response) => {
		const bucket = open(request, "write");
		const lines = z
			.string()
			.parse(request.body)
			.split("\n")
			.filter((line) => line !== "");
		const added = new Map<string, BucketFile | null>();
		const failed: { path: string; error: string }[] = [];
		const at = context.clock.now().toISOString();
		for (const line of lines) {
			const parsed = operationSchema.safeParse(JSON.parse(line));
			if (!parsed.success) throw new HubError(400, `Invalid operation: ${z.prettifyError(parsed.error)}`);
			const operation = parsed.data;
			const path = checkedPath(operation.path);
			if (operation.type === "deleteFile") {
				if (Object.hasOwn(bucket.record.files, path)) added.set(path, null);
				else failed.push({ path, error: "File not found" });
				continue;
			}
			if (operation.type === "copyFile") await copyContent(request, bucket, operation);
			const content = await findXetFile(bucket.directory, operation.xetHash);
			if (content === null) {
				failed.push({ path, error: "Its content was not uploaded" });
				continue;
			}
			added.set(path, {
				xetHash: operation.xetHash,
				size: content.size,
				uploadedAt: at,
				...(operation.mtime === undefined || operation.mtime === null
					? {}
					: { mtime: new Date(operation.mtime).toISOString() }),
				...(operation.contentType === undefined ? {} : { contentType: operation.contentType }),
			});
		}
		await context.buckets.change(bucket, (before) => {
			const files = new Map(Object.entries(before.files));
			for (const [path, file] of added) {
				if (file === null) files.delete(path);
				else files.set(path, file);
			}
			return { files: Object.fromEntries(files) };
		});
		const succeeded = lines.length - failed.length;
		response
			.status(succeeded === 0 && failed.length > 0 ? 422 : 200)
			.json({ success: failed.length === 0, processed: lines.length, succeeded, failed });
	});

	router.get("/buckets/:ns/:name/resolve/*rest", async (request, response) => {
		const bucket = open(request, "read");
		const path = rest(request).join("/");
		const { files, namespace, name } = bucket.record;
		const file = Object.hasOwn(files, path) ? files[path] : undefined;
		const content = file === undefined ? null : await findXetFile(bucket.directory, file.xetHash);
		if (file === undefined || content === null)
			throw new HubError(404, `Entry not found: ${path}`, { code: "EntryNotFound" });
		response.set({
			"Content-Length": String(file.size),
			"Content-Security-Policy": "default-src 'none'; sandbox",
			"Content-Type": "application/octet-stream",
			"X-Content-Type-Options": "nosniff",
			ETag: `"${content.sha256}"`,
			"X-Linked-Size": String(file.size),
			"X-Xet-Hash": file.xetHash,
			Link: `<${context.origin()}/api/buckets/${namespace}/${name}/xet-read-token>; rel="xet-auth"`,
		});
		if (request.method === "HEAD") response.end();
		else await pipeline(createReadStream(context.blobs.lfsPath(content.sha256)), response);
	});
	return router;
}
