import { join, posix } from "node:path";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { assertCheck, CheckFailure } from "./manifest-checks.ts";
import { OnnxGraphError, readOnnxGraph } from "./onnx-graph.ts";

/** Operator sets that onnxruntime brings itself. Any other would need a library from elsewhere. */
const DOMAINS: ReadonlySet<string> = new Set(["", "ai.onnx", "com.microsoft"]);

/** The one graph of an ONNX variant, as the manifest names it. */
export function onnxGraphPath(manifest: Manifest): string {
	const [graph, ...more] = manifest.files.map((file) => file.path).filter((path) => path.endsWith(".onnx"));
	assertCheck(graph !== undefined && more.length === 0, "an ONNX variant has one .onnx file");
	return graph;
}

/** The graph against the recipe: only known operators, no file from outside the manifest, bits and blocks as asked. */
export async function checkOnnx(directory: string, manifest: Manifest, recipe: Recipe): Promise<string> {
	const path = onnxGraphPath(manifest);
	const graph = await readOnnxGraph(join(directory, path)).catch((error: unknown) => {
		if (!(error instanceof OnnxGraphError)) throw error;
		throw new CheckFailure(`${path} is refused: ${error.message}`);
	});
	const listed = new Set(manifest.files.map((file) => file.path));
	for (const location of graph.externalFiles) {
		const plain = /^[A-Za-z0-9._-]+$/.test(location) && location !== "." && location !== "..";
		assertCheck(
			plain && listed.has(posix.join(posix.dirname(path), location)),
			`${path} reads its weights from ${JSON.stringify(location.slice(0, 80))}, which is not in the manifest`,
		);
	}
	const matrices = new Map<number, number>();
	let gathered = 0;
	for (const node of graph.nodes) {
		assertCheck(
			DOMAINS.has(node.domain),
			`${path} uses the operator ${JSON.stringify(`${node.domain}.${node.op}`.slice(0, 80))}`,
		);
		if (node.op !== "MatMulNBits" && node.op !== "GatherBlockQuantized") continue;
		const bits = Number(node.integers.get("bits") ?? 4n);
		const block = Number(node.integers.get("block_size") ?? 0n);
		assertCheck(block === recipe.group, `${path} has a ${node.op} of block ${block}; the recipe says ${recipe.group}`);
		if (node.op === "MatMulNBits") matrices.set(bits, (matrices.get(bits) ?? 0) + 1);
		else {
			gathered++;
			assertCheck(
				bits === recipe.embeddingBits,
				`${path} gathers its embedding from ${bits} bits; the recipe says ${recipe.embeddingBits ?? "floating point"}`,
			);
		}
	}
	const { bits } = recipe.name;
	const { embeddingBits } = recipe;
	const linears = manifest.layers.length;
	const expected = new Map([[bits, linears]]);
	if (embeddingBits !== null) expected.set(embeddingBits, (expected.get(embeddingBits) ?? 0) + 1);
	for (const width of new Set([...matrices.keys(), ...expected.keys()])) {
		assertCheck(
			matrices.get(width) === expected.get(width),
			`${path} has ${matrices.get(width) ?? 0} MatMulNBits of ${width} bits; for ${linears} linears of ${bits} bits${embeddingBits === null ? "" : ` and an output layer of ${embeddingBits}`} there are ${expected.get(width) ?? 0}`,
		);
	}
	assertCheck(
		gathered === (embeddingBits === null ? 0 : 1),
		`${path} gathers from ${gathered} quantized embeddings; the recipe has ${embeddingBits === null ? "none" : "one"}`,
	);
	const vocabulary = embeddingBits === null ? "" : `, embedding and output layer of ${embeddingBits} bits`;
	return `ONNX: ${graph.nodes.length} nodes of known operator sets, ${linears} MatMulNBits of ${bits} bits${vocabulary}`;
}
