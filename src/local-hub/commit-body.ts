import type { IncomingMessage } from "node:http";
import { z } from "zod";
import type { BlobStore } from "./blob-store.ts";
import type { CommitHeader, CommitOperation } from "./commit-operations.ts";
import { HubError } from "./hub-error.ts";
import { requestBytes } from "./request-bytes.ts";

/** Larger files go through LFS, as on the Hub. */
const LARGEST_REGULAR_FILE = 10 * 1024 * 1024;
const LONGEST_LINE = Math.ceil((LARGEST_REGULAR_FILE * 4) / 3) + 64 * 1024;
const LARGEST_JSON_BODY = 64 * 1024 * 1024;
const MOST_OPERATIONS = 50_000;

const encoding = z.enum(["base64", "utf-8"]).default("utf-8");
const oldPath = z.string().nullish();
const headerValue = z.object({
	summary: z.string().max(10_000),
	description: z.string().max(65_536).nullish(),
	parentCommit: z.string().nullish(),
});
const fileValue = z.object({ path: z.string(), content: z.string(), encoding, oldPath });
const lfsValue = z.object({
	path: z.string(),
	algo: z.literal("sha256").default("sha256"),
	oid: z.string().regex(/^[0-9a-f]{64}$/),
	oldPath,
});
const pathValue = z.object({ path: z.string() });
const lineSchema = z.discriminatedUnion("key", [
	z.object({ key: z.literal("header"), value: headerValue }),
	z.object({ key: z.literal("file"), value: fileValue }),
	z.object({ key: z.literal("lfsFile"), value: lfsValue }),
	z.object({ key: z.literal("deletedFile"), value: pathValue }),
	z.object({ key: z.literal("deletedFolder"), value: pathValue }),
	z.object({ key: z.literal("deletedEntry"), value: pathValue }),
]);
type Line = z.infer<typeof lineSchema>;

const legacySchema = headerValue.extend({
	files: z.array(fileValue).default([]),
	lfsFiles: z.array(lfsValue).default([]),
	deletedEntries: z.array(pathValue).default([]),
});

function parsed<T>(schema: z.ZodType<T>, text: string): T {
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch {
		throw new HubError(400, "A line of the commit is not JSON.");
	}
	const result = schema.safeParse(value);
	if (!result.success) throw new HubError(400, `Malformed commit: ${z.prettifyError(result.error)}`);
	return result.data;
}

/** The lines of a stream, none longer than allowed, so that no body grows without bound in memory. */
async function* lines(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
	let pending: Buffer[] = [];
	let length = 0;
	for await (const chunk of stream) {
		let start = 0;
		for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
			yield Buffer.concat([...pending, chunk.subarray(start, end)]).toString("utf8");
			pending = [];
			length = 0;
			start = end + 1;
		}
		pending.push(chunk.subarray(start));
		length += chunk.byteLength - start;
		if (length > LONGEST_LINE)
			throw new HubError(413, "A regular file of the commit is larger than 10 MiB; upload it through LFS.");
	}
	if (length > 0) yield Buffer.concat(pending).toString("utf8");
}

async function wholeBody(stream: AsyncIterable<Buffer>): Promise<string> {
	const chunks: Buffer[] = [];
	let length = 0;
	for await (const chunk of stream) {
		length += chunk.byteLength;
		if (length > LARGEST_JSON_BODY) throw new HubError(413, "The commit body is larger than 64 MiB.");
		chunks.push(chunk);
	}
	return Buffer.concat(chunks).toString("utf8");
}

/** Reads a commit request, NDJSON or the older JSON form, putting regular contents into the blob store as they come. */
export async function readCommitBody(
	request: IncomingMessage,
	blobs: BlobStore,
): Promise<{ header: CommitHeader; operations: CommitOperation[] }> {
	let header: CommitHeader | null = null;
	const operations: CommitOperation[] = [];

	async function take(line: Line): Promise<void> {
		if (operations.length >= MOST_OPERATIONS)
			throw new HubError(413, `A commit here holds at most ${MOST_OPERATIONS} operations.`);
		switch (line.key) {
			case "header":
				header = {
					summary: line.value.summary,
					description: line.value.description ?? "",
					parentCommit: line.value.parentCommit ?? null,
				};
				break;
			case "file": {
				const { path, content } = line.value;
				const bytes = Buffer.from(content, line.value.encoding === "base64" ? "base64" : "utf8");
				if (bytes.byteLength > LARGEST_REGULAR_FILE)
					throw new HubError(413, `${path} is larger than 10 MiB; upload it through LFS.`);
				const oid = await blobs.putRegular(bytes);
				operations.push({
					kind: "file",
					path,
					entry: { oid, size: bytes.byteLength },
					oldPath: line.value.oldPath ?? null,
				});
				break;
			}
			case "lfsFile":
				operations.push({
					kind: "lfs",
					path: line.value.path,
					oid: line.value.oid,
					oldPath: line.value.oldPath ?? null,
				});
				break;
			case "deletedFile":
				operations.push({ kind: "delete", path: line.value.path, folder: false });
				break;
			case "deletedFolder":
				operations.push({ kind: "delete", path: line.value.path, folder: true });
				break;
			case "deletedEntry":
				operations.push({ kind: "delete", path: line.value.path, folder: null });
				break;
		}
	}

	if ((request.headers["content-type"] ?? "").startsWith("application/json")) {
		const body = parsed(legacySchema, await wholeBody(requestBytes(request)));
		const { summary, description, parentCommit } = body;
		await take({ key: "header", value: { summary, description, parentCommit } });
		for (const value of body.files) await take({ key: "file", value });
		for (const value of body.lfsFiles) await take({ key: "lfsFile", value });
		for (const value of body.deletedEntries) await take({ key: "deletedEntry", value });
	} else {
		for await (const text of lines(requestBytes(request))) if (text.trim() !== "") await take(parsed(lineSchema, text));
	}
	if (header === null) throw new HubError(400, "The commit has no header line.");
	return { header, operations };
}
