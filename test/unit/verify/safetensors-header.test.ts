import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
	findDuplicateKey,
	MAXIMUM_HEADER_BYTES,
	parseSafetensorsHeader,
	SafetensorsHeaderError,
	safetensorsHeaderLength,
} from "../../../src/verify/safetensors-header.ts";

/** A file's start with this header text, and the size of the whole file. */
function file(header: string, dataBytes: number, claimed = new TextEncoder().encode(header).byteLength) {
	const json = new TextEncoder().encode(header);
	const start = new Uint8Array(8 + json.byteLength);
	new DataView(start.buffer).setBigUint64(0, BigInt(claimed), true);
	start.set(json, 8);
	return { start, size: start.byteLength + dataBytes };
}

const tensor = (dtype: string, shape: unknown, offsets: unknown): string =>
	JSON.stringify({ dtype, shape, data_offsets: offsets });

describe("a sound header", () => {
	test("gives names, types, shapes and places in the file", () => {
		const header = `{"__metadata__":{"format":"pt"},"b":${tensor("BF16", [2], [12, 16])},"a":${tensor("F32", [1, 3], [0, 12])}}  `;
		const { start, size } = file(header, 16);
		const parsed = parseSafetensorsHeader(start, size);
		assert.deepEqual([...parsed.tensors.keys()].toSorted(), ["a", "b"]);
		assert.deepEqual(parsed.tensors.get("b"), {
			name: "b",
			dtype: "BF16",
			shape: [2],
			start: start.byteLength + 12,
			end: start.byteLength + 16,
		});
		assert.equal(parsed.metadata.get("format"), "pt");
	});
	test("may hold empty tensors, scalars, sub-byte types and a tensor called __proto__", () => {
		const header = `{"e":${tensor("F32", [0, 7], [0, 0])},"s":${tensor("I64", [], [0, 8])},"f":${tensor("F4", [3, 2], [8, 11])},"__proto__":${tensor("U8", [1], [11, 12])}}`;
		const { start, size } = file(header, 12);
		assert.equal(parseSafetensorsHeader(start, size).tensors.size, 4);
	});
});

describe("an abused header is refused", () => {
	const good = tensor("F32", [1], [0, 4]);
	const cases: readonly [name: string, pattern: RegExp, header: string, dataBytes: number, claimed?: number][] = [
		["a length of 2^53", /claims/, "{}", 0, 2 ** 53],
		["a length just over the cap", /claims/, "{}", 0, MAXIMUM_HEADER_BYTES + 1],
		["a length past the end of the file", /more than the file has/, "{}", 0, 3],
		["no JSON", /not JSON/, "{{", 0],
		["an array", /not a JSON object/, "[]", 0],
		["spaces before the object", /not a JSON object/, " {}", 0],
		["bytes that are not UTF-8", /not JSON/, '{"\ud800":1}', 0],
		["a name twice", /names "a" twice/, `{"a":${good},"a":${good}}`, 4],
		["a name twice, once escaped", /names "a" twice/, `{"a":${good},"\\u0061":${good}}`, 4],
		[
			"a key twice inside a tensor",
			/"dtype" twice/,
			`{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}`,
			4,
		],
		["negative offsets", /impossible offsets/, `{"a":${tensor("F32", [1], [-4, 0])}}`, 4],
		["offsets that run backwards", /outside the file/, `{"a":${tensor("F32", [1], [4, 0])}}`, 4],
		["offsets outside the file", /outside the file/, `{"a":${tensor("F32", [2], [0, 8])}}`, 4],
		["offsets that are no integers", /impossible offsets/, `{"a":${tensor("F32", [1], [0.5, 4.5])}}`, 4],
		["offsets beyond exact integers", /impossible offsets/, `{"a":${tensor("F32", [1], [0, 2 ** 60])}}`, 4],
		["three offsets", /impossible offsets/, `{"a":${tensor("F32", [1], [0, 4, 4])}}`, 4],
		["overlapping tensors", /overlaps/, `{"a":${tensor("F32", [1], [0, 4])},"b":${tensor("F32", [1], [2, 6])}}`, 6],
		["the same bytes for two tensors", /overlaps/, `{"a":${good},"b":${good}}`, 4],
		["a gap", /gap/, `{"a":${tensor("F32", [1], [0, 4])},"b":${tensor("F32", [1], [8, 12])}}`, 12],
		["bytes after the last tensor", /end at byte/, `{"a":${good}}`, 100],
		["a shape that does not give the size", /shape and dtype/, `{"a":${tensor("F32", [2], [0, 4])}}`, 4],
		["a shape whose product overflows", /shape and dtype/, `{"a":${tensor("F32", [2 ** 50, 2 ** 50, 4], [0, 4])}}`, 4],
		["a negative dimension", /impossible shape/, `{"a":${tensor("F32", [-1, -1], [0, 4])}}`, 4],
		["too many dimensions", /impossible shape/, `{"a":${tensor("F32", Array(9).fill(1), [0, 4])}}`, 4],
		["an unknown dtype", /unknown dtype/, `{"a":${tensor("OBJECT", [1], [0, 4])}}`, 4],
		["a tensor that is no object", /not described by an object/, '{"a":[]}', 0],
		["a name with a line break", /not acceptable/, `{"a\\nb":${good}}`, 4],
		["metadata that is no text", /metadata/, '{"__metadata__":{"a":1}}', 0],
	];
	for (const [name, pattern, header, dataBytes, claimed] of cases) {
		test(name, () => {
			const { start, size } = file(header, dataBytes, claimed);
			if (name.includes("UTF-8")) start[10] = 0xff;
			assert.throws(
				() => parseSafetensorsHeader(start, size),
				(error: Error) => error instanceof SafetensorsHeaderError && pattern.test(error.message),
			);
		});
	}
	test("a file of a few bytes", () => {
		assert.throws(() => safetensorsHeaderLength(new Uint8Array(3), 3), SafetensorsHeaderError);
	});
});

test("whatever the bytes are, the parser answers or refuses, and what it accepts fills the file exactly", () => {
	// Fixed seed: mulberry32.
	let state = 20261122;
	const random = (): number => {
		state = (state + 0x6d2b79f5) | 0;
		let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
	};
	const below = (limit: number): number => Math.floor(random() * limit);
	const base = `{"a":${tensor("F32", [1, 3], [0, 12])},"b":${tensor("BF16", [2], [12, 16])},"c":${tensor("I64", [], [16, 24])}}`;
	const pieces = ["{", "}", "[", "]", ",", ":", '"', "-", "0", "9", "e", "\\", "null", "1e999", '"a"', "4", " "];
	let accepted = 0;
	for (let round = 0; round < 20_000; round++) {
		let header = base;
		for (let edits = below(4); edits > 0; edits--) {
			const at = below(header.length);
			const piece = pieces[below(pieces.length)] ?? "";
			header = header.slice(0, at) + piece + header.slice(at + below(3));
		}
		const { start, size } = file(header, 24 + (below(8) === 0 ? below(9) - 4 : 0));
		if (below(10) === 0) start[below(8)] = below(256);
		try {
			const { tensors } = parseSafetensorsHeader(start, size);
			accepted++;
			const bytes = [...tensors.values()].reduce((sum, { start: from, end }) => sum + end - from, 0);
			const length = safetensorsHeaderLength(start, size);
			assert.equal(8 + length + bytes, size);
		} catch (error) {
			assert.ok(error instanceof SafetensorsHeaderError, `${header}: ${error}`);
		}
	}
	assert.ok(accepted > 1000, `${accepted} accepted`);
});

test("duplicate keys are found at every depth, and equal keys of different objects are none", () => {
	assert.equal(findDuplicateKey('{"a":[{"x":1,"y":{"x":2}},{"x":3}],"b":"a"}'), null);
	assert.equal(findDuplicateKey('{"a":[{"x":1,"x":2}]}'), "x");
	assert.equal(findDuplicateKey('{"a":"{\\"b\\":1,\\"b\\":2}"}'), null);
});
