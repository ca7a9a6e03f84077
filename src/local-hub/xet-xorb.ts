import { type FileHandle, open } from "node:fs/promises";
import { decompress } from "lz4js";
import { HubError } from "./hub-error.ts";

type Chunk = { readonly offset: number; readonly stored: number; readonly scheme: number; readonly size: number };

const HEADER = 8;

/** Undoes byte grouping by four: the planes of bytes 0, 1, 2, 3 of each word, one after the other, become words again. */
export function ungroupBytes(grouped: Uint8Array): Uint8Array {
	const length = grouped.byteLength;
	const plain = new Uint8Array(length);
	let from = 0;
	for (let plane = 0; plane < 4; plane++) for (let to = plane; to < length; to += 4) plain[to] = grouped[from++] ?? 0;
	return plain;
}

export function decodeChunk(scheme: number, stored: Uint8Array, size: number): Uint8Array {
	const inflate = (): Uint8Array => {
		try {
			return decompress(stored, size);
		} catch {
			throw new HubError(400, "A chunk of a xorb is not a whole LZ4 frame.");
		}
	};
	let plain: Uint8Array;
	switch (scheme) {
		case 0:
			plain = stored;
			break;
		case 1:
			plain = inflate();
			break;
		case 2:
			plain = ungroupBytes(inflate());
			break;
		default:
			throw new HubError(400, `A chunk of a xorb is packed by the unknown scheme ${scheme}.`);
	}
	if (plain.byteLength !== size) throw new HubError(400, "A chunk of a xorb does not unpack to its stated size.");
	return plain;
}

async function readExactly(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
	const bytes = Buffer.alloc(length);
	const { bytesRead } = await handle.read(bytes, 0, length, offset);
	return bytesRead === length ? bytes : bytes.subarray(0, bytesRead);
}

/** A stored xorb whose chunks can be read by number. Close it when done. */
export type Xorb = {
	readonly chunkCount: number;
	chunks(start: number, end: number): AsyncGenerator<Uint8Array>;
	/** Where these chunks lie in the stored xorb, as they are packed there; `end` is the last byte. */
	bytesOf(start: number, end: number): { readonly start: number; readonly end: number };
	close(): Promise<void>;
};

export async function openXorb(path: string): Promise<Xorb> {
	const handle = await open(path, "r");
	const chunks: Chunk[] = [];
	try {
		const { size: length } = await handle.stat();
		let offset = 0;
		while (offset + HEADER <= length) {
			const header = await readExactly(handle, offset, HEADER);
			// the footer that follows the chunks starts with a letter
			if (header[0] !== 0) break;
			const stored = header.readUIntLE(1, 3);
			chunks.push({ offset: offset + HEADER, stored, scheme: header.readUInt8(4), size: header.readUIntLE(5, 3) });
			offset += HEADER + stored;
		}
	} catch (error) {
		await handle.close();
		throw error;
	}
	return {
		chunkCount: chunks.length,
		async *chunks(start, end) {
			if (start >= end || end > chunks.length)
				throw new HubError(400, `A shard names chunks ${start} to ${end} of a xorb that has ${chunks.length}.`);
			for (const chunk of chunks.slice(start, end)) {
				const stored = await readExactly(handle, chunk.offset, chunk.stored);
				if (stored.byteLength !== chunk.stored) throw new HubError(400, "A xorb ends in the middle of a chunk.");
				yield decodeChunk(chunk.scheme, stored, chunk.size);
			}
		},
		bytesOf(start, end) {
			const [first, last] = [chunks[start], chunks[end - 1]];
			if (first === undefined || last === undefined) throw new HubError(400, "The xorb has no such chunks.");
			return { start: first.offset - HEADER, end: last.offset + last.stored - 1 };
		},
		close: () => handle.close(),
	};
}
