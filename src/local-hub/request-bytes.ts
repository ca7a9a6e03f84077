import { type FileHandle, open } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { HubError } from "./hub-error.ts";

/**
 * The body's bytes. Leaving the loop early does not cut the connection, as it would on the stream itself: a client
 * that is still sending then sees a reset and never the reason of the refusal.
 */
export function requestBytes(request: IncomingMessage): AsyncIterable<Buffer> {
	return request.iterator({ destroyOnReturn: false });
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
