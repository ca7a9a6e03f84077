import { type FileHandle, open } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { HubError } from "./hub-error.ts";

const lines = new WeakMap<IncomingMessage, UploadLine>();

/** A line that uploads share: each piece waits until those before it are through. */
export type UploadLine = { carry(bytes: number): Promise<void> };

export function uploadLine(bytesPerSecond: number): UploadLine {
	let freeAt = 0;
	return {
		async carry(bytes) {
			const now = performance.now();
			freeAt = Math.max(now, freeAt) + (bytes / bytesPerSecond) * 1000;
			await sleep(freeAt - now);
		},
	};
}

/** Holds the body of this request to what the line carries. */
export function sendOver(request: IncomingMessage, line: UploadLine): void {
	lines.set(request, line);
}

/**
 * The body's bytes. Leaving the loop early does not cut the connection, as it would on the stream itself: a client
 * that is still sending then sees a reset and never the reason of the refusal.
 */
export function requestBytes(request: IncomingMessage): AsyncIterable<Buffer> {
	const bytes: AsyncIterable<Buffer> = request.iterator({ destroyOnReturn: false });
	const line = lines.get(request);
	return line === undefined ? bytes : carried(bytes, line);
}

async function* carried(bytes: AsyncIterable<Buffer>, line: UploadLine): AsyncGenerator<Buffer> {
	for await (const piece of bytes) {
		await line.carry(piece.byteLength);
		yield piece;
	}
}

/** Streams the body into a new file of at most `limit` bytes; 413 with `what` in its words for a longer one. */
export async function saveRequest(
	request: IncomingMessage,
	path: string,
	limit: number,
	what: string,
	onChunk: (chunk: Buffer) => void = () => {},
): Promise<void> {
	let size = 0;
	const handle: FileHandle = await open(path, "w", 0o600);
	try {
		for await (const chunk of requestBytes(request)) {
			size += chunk.byteLength;
			if (size > limit) throw new HubError(413, `The ${what} is larger than ${limit} bytes.`);
			onChunk(chunk);
			await handle.write(chunk);
		}
	} finally {
		await handle.close();
	}
}
