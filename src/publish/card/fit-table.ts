import { runMemory, weightBytes } from "../../fit/memory.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import { markdownCode } from "../escape.ts";
import { formatBytes } from "../figures.ts";
import { formatContext } from "../fitting.ts";
import { recipeNameOf } from "./published-measurement.ts";

const CONTEXTS = [2_048, 8_192, 32_768, 131_072] as const;

/** The memory that a run of each variant takes, by context; nothing where the model's configuration does not say it. */
export function fitTable(manifests: readonly Manifest[], mention: string): readonly string[] {
	const shapes = manifests.flatMap((manifest) => manifest.shape ?? []);
	const [shape] = shapes;
	if (shape === undefined || shapes.length < manifests.length) return [];
	const longest = shape.contextLength;
	const within = CONTEXTS.filter((context) => longest === null || context < longest);
	const contexts = longest === null || longest > 1_048_576 ? within : [...within, longest];
	const rows = manifests.map((manifest) => {
		const { container } = recipeNameOf(manifest);
		const cells = contexts.map((context) =>
			formatBytes(runMemory(weightBytes(manifest), manifest.shape ?? null, { container, context, cache: "f16" }).total),
		);
		return `| ${markdownCode(manifest.recipe)} | ${cells.join(" | ")} |`;
	});
	const { container } = recipeNameOf(manifests[0]);
	const measured =
		container === "gguf"
			? "What llama.cpp plans for itself with flash attention and a cache of 16 bits, within 10 % of what it reports"
			: "Weights, cache and one batch's activations: an estimate that was not measured with this engine";
	return [
		"## Memory it takes",
		[
			`| variant | ${contexts.map((context) => `context ${formatContext(context)}`).join(" | ")} |`,
			`|---|${contexts.map(() => "---:").join("|")}|`,
			...rows,
		].join("\n"),
		`${measured}. ${mention}`,
	];
}
