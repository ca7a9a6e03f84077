import { parseJson } from "../parse-json.ts";

/** Why a safetensors header is refused. The message is for people. */
export class SafetensorsHeaderError extends Error {
	override readonly name = "SafetensorsHeaderError";
}

export type TensorInfo = {
	readonly name: string;
	readonly dtype: string;
	readonly shape: readonly number[];
	/** Bytes from the start of the file, end exclusive. */
	readonly start: number;
	readonly end: number;
};

export type SafetensorsHeader = {
	readonly tensors: ReadonlyMap<string, TensorInfo>;
	readonly metadata: ReadonlyMap<string, string>;
};

/** Bits of one element. */
const DTYPE_BITS: ReadonlyMap<string, number> = new Map([
	["BOOL", 8],
	["U8", 8],
	["I8", 8],
	["F8_E5M2", 8],
	["F8_E4M3", 8],
	["F8_E8M0", 8],
	["F4", 4],
	["F6_E2M3", 6],
	["F6_E3M2", 6],
	["I16", 16],
	["U16", 16],
	["F16", 16],
	["BF16", 16],
	["I32", 32],
	["U32", 32],
	["F32", 32],
	["I64", 64],
	["U64", 64],
	["F64", 64],
	["C64", 64],
]);

export const LENGTH_BYTES = 8;
/** The format allows 100 MB; the largest real headers (one shard of a mixture of experts) stay below a tenth of this. */
export const MAXIMUM_HEADER_BYTES = 32 * 2 ** 20;
const MAXIMUM_TENSORS = 200_000;
const MAXIMUM_NAME_CHARACTERS = 512;
const MAXIMUM_DIMENSIONS = 8;

/** Bytes of the JSON that follows the first eight, which are all `start` needs to hold. */
export function safetensorsHeaderLength(start: Uint8Array, fileSize: number): number {
	if (fileSize < LENGTH_BYTES + 2 || start.byteLength < LENGTH_BYTES) {
		throw new SafetensorsHeaderError(`the file is too short (${fileSize} bytes)`);
	}
	const length = new DataView(start.buffer, start.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
	if (length > BigInt(MAXIMUM_HEADER_BYTES)) {
		throw new SafetensorsHeaderError(`its header claims ${length} bytes; the most accepted is ${MAXIMUM_HEADER_BYTES}`);
	}
	if (length > BigInt(fileSize - LENGTH_BYTES)) {
		throw new SafetensorsHeaderError(`its header claims ${length} bytes, more than the file has`);
	}
	if (length < 2n) throw new SafetensorsHeaderError("its header is empty");
	return Number(length);
}

/**
 * The header of a safetensors file of `fileSize` bytes; `start` holds at least the length field and the JSON.
 * Stricter than needed to load: sizes follow from shapes, and the tensors fill the file without gap or overlap.
 */
export function parseSafetensorsHeader(start: Uint8Array, fileSize: number): SafetensorsHeader {
	const length = safetensorsHeaderLength(start, fileSize);
	const dataStart = LENGTH_BYTES + length;
	if (start.byteLength < dataStart) throw new SafetensorsHeaderError("the header was not read whole");
	const json = parseJson(start.subarray(LENGTH_BYTES, dataStart));
	if (json === undefined) throw new SafetensorsHeaderError("its header is not JSON");
	const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(start.subarray(LENGTH_BYTES, dataStart));
	if (!text.startsWith("{") || !isRecord(json)) throw new SafetensorsHeaderError("its header is not a JSON object");
	const repeated = findDuplicateKey(text);
	if (repeated !== null) throw new SafetensorsHeaderError(`its header names ${quote(repeated)} twice`);

	const metadata = new Map<string, string>();
	const tensors: TensorInfo[] = [];
	for (const [name, entry] of Object.entries(json)) {
		if (name === "__metadata__") {
			if (!isRecord(entry)) throw new SafetensorsHeaderError("its metadata is not an object");
			for (const [key, value] of Object.entries(entry)) {
				if (typeof value !== "string") throw new SafetensorsHeaderError("its metadata holds something else than text");
				metadata.set(key, value);
			}
			continue;
		}
		tensors.push(parseTensor(name, entry, dataStart, fileSize));
		if (tensors.length > MAXIMUM_TENSORS) throw new SafetensorsHeaderError(`it names over ${MAXIMUM_TENSORS} tensors`);
	}
	let expected = dataStart;
	for (const tensor of tensors.toSorted((one, other) => one.start - other.start || one.end - other.end)) {
		if (tensor.start < expected) throw new SafetensorsHeaderError(`${quote(tensor.name)} overlaps another tensor`);
		if (tensor.start > expected) throw new SafetensorsHeaderError(`there is a gap before ${quote(tensor.name)}`);
		expected = tensor.end;
	}
	if (expected !== fileSize) {
		throw new SafetensorsHeaderError(`its tensors end at byte ${expected}, but the file has ${fileSize} bytes`);
	}
	return { tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), metadata };
}

function parseTensor(name: string, entry: unknown, dataStart: number, fileSize: number): TensorInfo {
	const label = quote(name);
	if (name.length === 0 || name.length > MAXIMUM_NAME_CHARACTERS || /[\u0000-\u001f\u007f]/.test(name)) {
		throw new SafetensorsHeaderError(`the tensor name ${label} is not acceptable`);
	}
	if (!isRecord(entry)) throw new SafetensorsHeaderError(`${label} is not described by an object`);
	const { dtype, shape, data_offsets: offsets } = entry;
	const bits = typeof dtype === "string" ? DTYPE_BITS.get(dtype) : undefined;
	if (typeof dtype !== "string" || bits === undefined)
		throw new SafetensorsHeaderError(`${label} has an unknown dtype`);
	if (!isCounts(shape) || shape.length > MAXIMUM_DIMENSIONS) {
		throw new SafetensorsHeaderError(`${label} has an impossible shape`);
	}
	if (!isCounts(offsets) || offsets.length !== 2) throw new SafetensorsHeaderError(`${label} has impossible offsets`);
	const [begin = 0, end = 0] = offsets;
	if (begin > end || end > fileSize - dataStart) {
		throw new SafetensorsHeaderError(`the offsets of ${label} point outside the file`);
	}
	const size = shape.reduce((product, count) => product * BigInt(count), BigInt(bits));
	if (size !== BigInt(end - begin) * 8n) {
		throw new SafetensorsHeaderError(`${label} takes ${end - begin} bytes, which its shape and dtype do not give`);
	}
	return { name, dtype, shape, start: dataStart + begin, end: dataStart + end };
}

function isRecord(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
	return Array.isArray(value) && value.every((count) => Number.isSafeInteger(count) && count >= 0);
}

function quote(name: string): string {
	return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}

/**
 * A key that some object of `text`, which is valid JSON, has twice. `JSON.parse` keeps the last one silently, other
 * parsers the first: a file that reads differently here and there has been made to deceive.
 */
export function findDuplicateKey(text: string): string | null {
	const objects: Set<string>[] = [];
	const inArray: boolean[] = [];
	let keyExpected = false;
	for (let index = 0; index < text.length; index++) {
		switch (text[index]) {
			case "{":
				objects.push(new Set());
				inArray.push(false);
				keyExpected = true;
				break;
			case "[":
				inArray.push(true);
				keyExpected = false;
				break;
			case "}":
				objects.pop();
				inArray.pop();
				keyExpected = false;
				break;
			case "]":
				inArray.pop();
				keyExpected = false;
				break;
			case ",":
				keyExpected = inArray.at(-1) === false;
				break;
			case '"': {
				const start = index;
				for (index++; text[index] !== '"'; index++) if (text[index] === "\\") index++;
				if (keyExpected) {
					const key: unknown = JSON.parse(text.slice(start, index + 1));
					const keys = objects.at(-1);
					if (typeof key === "string" && keys !== undefined) {
						if (keys.has(key)) return key;
						keys.add(key);
					}
					keyExpected = false;
				}
				break;
			}
			default:
		}
	}
	return null;
}
