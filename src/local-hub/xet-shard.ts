import { HubError } from "./hub-error.ts";

/** A file as a shard describes it: which runs of chunks of which xorbs make it up. */
export type ShardFile = {
	/** What Xet calls the content. */
	readonly hash: string;
	/** The sha256 of the content, when the client stated it. */
	readonly sha256: string | null;
	readonly terms: readonly {
		readonly xorb: string;
		readonly unpackedLength: number;
		readonly chunkStart: number;
		readonly chunkEnd: number;
	}[];
};

const ENTRY = 48;
const HAS_VERIFICATION = 0x80000000;
const HAS_METADATA = 0x40000000;
const TAG = "HFRepoMetaData";

/** Xet writes a hash as four little-endian 64-bit words, each printed as a number. */
export function xetHash(bytes: Buffer): string {
	let text = "";
	for (let word = 0; word < 4; word++)
		text += bytes
			.readBigUInt64LE(word * 8)
			.toString(16)
			.padStart(16, "0");
	return text;
}

/** The file section of a shard (layout: hub-docs `docs/xet/shard.md`). Throws a 400 on anything that does not fit. */
export function parseShard(shard: Buffer): readonly ShardFile[] {
	const at = (offset: number): Buffer => {
		if (offset + ENTRY > shard.byteLength) throw new HubError(400, "The shard ends in the middle of its file section.");
		return shard.subarray(offset, offset + ENTRY);
	};
	if (!at(0).subarray(0, TAG.length).equals(Buffer.from(TAG))) throw new HubError(400, "Not a shard.");
	const files: ShardFile[] = [];
	let offset = ENTRY;
	for (;;) {
		const header = at(offset);
		offset += ENTRY;
		if (header.subarray(0, 32).every((byte) => byte === 0xff)) return files;
		const hash = xetHash(header);
		const flags = header.readUInt32LE(32);
		const count = header.readUInt32LE(36);
		if (count * ENTRY > shard.byteLength) throw new HubError(400, "The shard names more terms than it holds.");
		const terms: ShardFile["terms"][number][] = [];
		for (let term = 0; term < count; term++, offset += ENTRY) {
			const entry = at(offset);
			terms.push({
				xorb: xetHash(entry),
				unpackedLength: entry.readUInt32LE(36),
				chunkStart: entry.readUInt32LE(40),
				chunkEnd: entry.readUInt32LE(44),
			});
		}
		if ((flags & HAS_VERIFICATION) !== 0) offset += count * ENTRY;
		let sha256: string | null = null;
		if ((flags & HAS_METADATA) !== 0) {
			sha256 = xetHash(at(offset));
			offset += ENTRY;
		}
		files.push({ hash, sha256, terms });
	}
}
