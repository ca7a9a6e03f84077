import { readFile, stat } from "node:fs/promises";

/** Why an ONNX file is refused before a runtime sees it. */
export class OnnxGraphError extends Error {
	override readonly name = "OnnxGraphError";
}

type OnnxNode = { readonly op: string; readonly domain: string; readonly integers: ReadonlyMap<string, bigint> };

type OnnxGraph = {
	readonly nodes: readonly OnnxNode[];
	/** Files beside the graph that its tensors are read from. */
	readonly externalFiles: ReadonlySet<string>;
};

const MAXIMUM_BYTES = 2 ** 31 - 1;
const MAXIMUM_DEPTH = 8;

/** Field numbers of onnx.proto, those that matter here. */
const MODEL = { graph: 7, functions: 25 } as const;
const GRAPH = { node: 1, initializer: 5 } as const;
const NODE = { opType: 4, attribute: 5, domain: 7 } as const;
const ATTRIBUTE = { name: 1, integer: 3, tensor: 5, graph: 6, tensors: 10, graphs: 11 } as const;
const TENSOR = { externalData: 13 } as const;
const ENTRY = { key: 1, value: 2 } as const;

/**
 * Every operator and every external file that an ONNX file names, subgraphs included. Read here, by a parser that only
 * walks bytes, because the names decide which native code and which paths a runtime would touch.
 */
export async function readOnnxGraph(path: string): Promise<OnnxGraph> {
	if ((await stat(path)).size > MAXIMUM_BYTES) throw new OnnxGraphError("the graph is larger than 2 GiB");
	const bytes = await readFile(path);
	const nodes: OnnxNode[] = [];
	const externalFiles = new Set<string>();
	let graphs = 0;
	for (const field of fieldsOf(bytes)) {
		if (field.number === MODEL.functions) throw new OnnxGraphError("it defines functions of its own");
		if (field.number === MODEL.graph) {
			graphs++;
			walkGraph(field.bytes, nodes, externalFiles, 0);
		}
	}
	if (graphs !== 1) throw new OnnxGraphError("it is not an ONNX model with one graph");
	return { nodes, externalFiles };
}

function walkGraph(bytes: Uint8Array, nodes: OnnxNode[], externalFiles: Set<string>, depth: number): void {
	if (depth > MAXIMUM_DEPTH) throw new OnnxGraphError("its subgraphs are nested too deep");
	for (const field of fieldsOf(bytes)) {
		if (field.number === GRAPH.initializer) walkTensor(field.bytes, externalFiles);
		if (field.number === GRAPH.node) walkNode(field.bytes, nodes, externalFiles, depth);
	}
}

function walkNode(bytes: Uint8Array, nodes: OnnxNode[], externalFiles: Set<string>, depth: number): void {
	let op = "";
	let domain = "";
	const integers = new Map<string, bigint>();
	for (const field of fieldsOf(bytes)) {
		if (field.number === NODE.opType) op = textOf(field.bytes);
		if (field.number === NODE.domain) domain = textOf(field.bytes);
		if (field.number !== NODE.attribute) continue;
		let name = "";
		let integer: bigint | null = null;
		for (const part of fieldsOf(field.bytes)) {
			if (part.number === ATTRIBUTE.name) name = textOf(part.bytes);
			if (part.number === ATTRIBUTE.integer) integer = part.integer;
			if (part.number === ATTRIBUTE.tensor || part.number === ATTRIBUTE.tensors) walkTensor(part.bytes, externalFiles);
			if (part.number === ATTRIBUTE.graph || part.number === ATTRIBUTE.graphs) {
				walkGraph(part.bytes, nodes, externalFiles, depth + 1);
			}
		}
		if (integer !== null) integers.set(name, integer);
	}
	nodes.push({ op, domain, integers });
}

function walkTensor(bytes: Uint8Array, externalFiles: Set<string>): void {
	for (const field of fieldsOf(bytes)) {
		if (field.number !== TENSOR.externalData) continue;
		let key = "";
		let value = "";
		for (const part of fieldsOf(field.bytes)) {
			if (part.number === ENTRY.key) key = textOf(part.bytes);
			if (part.number === ENTRY.value) value = textOf(part.bytes);
		}
		if (key === "location") externalFiles.add(value);
	}
}

function textOf(bytes: Uint8Array): string {
	return new TextDecoder().decode(bytes.subarray(0, 1024));
}

type Field = { readonly number: number; readonly bytes: Uint8Array; readonly integer: bigint };
const EMPTY = new Uint8Array(0);

/** The fields of one protobuf message; length-delimited ones as views, without copying. */
function* fieldsOf(bytes: Uint8Array): Generator<Field> {
	let offset = 0;
	function varint(): bigint {
		let value = 0n;
		for (let shift = 0n; shift < 70n; shift += 7n) {
			const byte = bytes[offset];
			if (byte === undefined) throw new OnnxGraphError("it ends in the middle of a field");
			offset++;
			value |= BigInt(byte & 0x7f) << shift;
			if (byte < 0x80) return BigInt.asUintN(64, value);
		}
		throw new OnnxGraphError("it holds a malformed number");
	}
	while (offset < bytes.byteLength) {
		const tag = Number(varint() & 0xffff_ffffn);
		const number = tag >>> 3;
		switch (tag & 7) {
			case 0:
				yield { number, bytes: EMPTY, integer: BigInt.asIntN(64, varint()) };
				break;
			case 1:
				offset += 8;
				break;
			case 2: {
				const length = varint();
				if (length > BigInt(bytes.byteLength - offset)) throw new OnnxGraphError("a field is longer than the file");
				yield { number, bytes: bytes.subarray(offset, offset + Number(length)), integer: 0n };
				offset += Number(length);
				break;
			}
			case 5:
				offset += 4;
				break;
			default:
				throw new OnnxGraphError("it is not a protobuf message");
		}
	}
	if (offset !== bytes.byteLength) throw new OnnxGraphError("it ends in the middle of a field");
}
