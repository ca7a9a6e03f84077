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
	let quantized = 0;
	for (const node of graph.nodes) {
		assertCheck(
			DOMAINS.has(node.domain),
			`${path} uses the operator ${JSON.stringify(`${node.domain}.${node.op}`.slice(0, 80))}`,
		);
		if (node.op !== "MatMulNBits") continue;
		const bits = Number(node.integers.get("bits") ?? 4n);
		const block = Number(node.integers.get("block_size") ?? 0n);
		assertCheck(
			bits === recipe.name.bits && block === recipe.group,
			`${path} has a MatMulNBits of ${bits} bits and block ${block}; the recipe says ${recipe.name.bits} and ${recipe.group}`,
		);
		quantized++;
	}
	assertCheck(
		quantized === manifest.layers.length,
		`${path} has ${quantized} MatMulNBits, the manifest describes ${manifest.layers.length} linears`,
	);
	return `ONNX: ${graph.nodes.length} nodes of known operator sets, ${quantized} MatMulNBits of ${recipe.name.bits} bits`;
}
