import assert from "node:assert/strict";
import { test } from "node:test";
import { folderSourceReader } from "../../../src/verify/folder-source-reader.ts";
import { inspectApart } from "../../../src/verify/inspect-apart.ts";
import { inspectFiles } from "../../../src/verify/inspect-files.ts";
import { SourceAccessError, type SourceReader } from "../../../src/verify/source-reader.ts";
import { TINY_SOURCE } from "../../support/tiny-variants.ts";

const LIMITS = { maximumWeightBytes: 1e9 };
const APART = { bytesHere: 0, bytes: 512 * 2 ** 20, heapMegabytes: 256, milliseconds: 60_000 };

async function withFile(path: string, content: string): Promise<SourceReader> {
	const base = await folderSourceReader(TINY_SOURCE);
	const bytes = new TextEncoder().encode(content);
	return {
		files: [...base.files.filter((file) => file.path !== path), { path, size: bytes.byteLength }],
		read: async (name, start, end) => (name === path ? bytes.subarray(start, end) : await base.read(name, start, end)),
	};
}

function messageOf(result: Awaited<ReturnType<typeof inspectApart>>): string {
	return result.ok ? "accepted" : `${result.refusal.code}: ${result.refusal.message}`;
}

test("a source that is looked at by a child comes out as it does here, accepted or refused", async () => {
	const sound = await folderSourceReader(TINY_SOURCE);
	const broken = await withFile("config.json", "[");
	for (const reader of [sound, broken]) {
		assert.deepEqual(await inspectApart(reader, LIMITS, APART), await inspectFiles(reader, LIMITS));
	}
});

test("JSON that fills the heap ends a child, not the bot, and is refused", async () => {
	const reader = await withFile("tokenizer_config.json", `{"a":[${"[],".repeat(9_000_000)}[]]}`);
	const before = process.memoryUsage().heapUsed;
	const result = await inspectApart(reader, LIMITS, { ...APART, heapMegabytes: 100 });
	assert.match(messageOf(result), /^broken-safetensors: .* take more memory to look at/);
	assert.ok(process.memoryUsage().heapUsed - before < 50e6);
});

test("what takes too long or too many bytes to look at is refused; waiting for the Hub does not count", async () => {
	const sound = await folderSourceReader(TINY_SOURCE);
	assert.match(messageOf(await inspectApart(sound, LIMITS, { ...APART, milliseconds: 1 })), /take too long to look at/);
	assert.match(messageOf(await inspectApart(sound, LIMITS, { ...APART, bytes: 100 })), /more bytes than are looked at/);
	const slow: SourceReader = {
		...sound,
		read: async (...range) => {
			await new Promise((resolve) => setTimeout(resolve, 1500));
			return await sound.read(...range);
		},
	};
	const patient = { ...APART, milliseconds: 6000 };
	assert.equal((await inspectApart(slow, LIMITS, patient)).ok, true);
});

test("what the reader throws comes through a child as it is", async () => {
	const sound = await folderSourceReader(TINY_SOURCE);
	const closed: SourceReader = { ...sound, read: () => Promise.reject(new SourceAccessError("gated")) };
	await assert.rejects(inspectApart(closed, LIMITS, APART), SourceAccessError);
});
