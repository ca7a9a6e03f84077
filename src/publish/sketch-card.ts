import { stringify } from "yaml";
import { z } from "zod";
import { markdownCode, markdownText } from "./escape.ts";
import { formatBytes } from "./figures.ts";

/** One line of `index.jsonl`, which a sketch repo keeps beside its folders. */
export const SketchEntry = z.object({
	source: z.string(),
	revision: z.string(),
	license: z.string().nullable(),
	kind: z.string(),
	iterations: z.int(),
	calibration: z.object({ sha256: z.string(), sequences: z.int(), length: z.int() }),
	/** The runner's fingerprint of source, calibration tokens and settings. */
	key: z.string(),
	/** The sketch's folder in the repo. */
	path: z.string(),
	bytes: z.int(),
});
export type SketchEntry = z.infer<typeof SketchEntry>;

const MOST_ROWS = 500;

function row(entry: SketchEntry): string {
	const cells = [
		markdownText(entry.source),
		markdownCode(entry.revision.slice(0, 12)),
		`${markdownText(entry.kind)}, ${entry.iterations}`,
		`${entry.calibration.sequences} × ${entry.calibration.length}`,
		formatBytes(entry.bytes),
		entry.license === null ? "" : markdownText(entry.license),
		markdownCode(entry.path),
	];
	return `| ${cells.join(" | ")} |`;
}

/** The README.md of a sketch repo: what is in it, how it is laid out, how it is used. */
export function renderSketchCard(request: { readonly repo: string; readonly entries: readonly SketchEntry[] }): string {
	const { repo, entries } = request;
	const shown = entries.toSorted((one, other) => (one.path < other.path ? -1 : 1)).slice(0, MOST_ROWS);
	const [first] = shown;
	const frontMatter = stringify({
		pretty_name: "Kronecker sketches of language models",
		tags: ["quantization", "yaqa", "kronecker-factors", "hessian"],
		license: "other",
		configs: [{ config_name: "index", data_files: "index.jsonl" }],
	});
	return `---
${frontMatter}---

# Kronecker sketches

For every linear layer of a model, two factors of the Hessian of its end-to-end KL divergence, \`H ≈ H_O ⊗ H_I\`, as [YAQA](https://arxiv.org/abs/2505.22988) rounds by; and the second moment of the layer's inputs, which GPTQ and other one-sided quantizers want. Taking one costs many passes over the model; with it, every bit width and container is made without them.

| model | commit | kind, iterations | calibration | size | licence of the model | folder |
|---|---|---|---|---:|---|---|
${shown.map(row).join("\n")}
${entries.length > shown.length ? `\nThe first ${MOST_ROWS} of ${entries.length}; \`index.jsonl\` has all.\n` : ""}
## Layout

A folder holds \`sketch.json\` and one safetensors file a block. A factor is the lower triangle of a symmetric float32 matrix, row by row, the diagonal included. For a linear \`NAME\` of weight \`[out, in]\`: \`NAME.input\` is \`H_I [in, in]\`, \`NAME.output\` is \`H_O [out, out]\`, \`NAME.second_moment\` is \`E[x xᵀ] [in, in]\`, stored once for linears that share their input; \`sketch.json\` names the linear that has it, every file's size and SHA-256, and the fingerprint of source, calibration tokens and settings.

## Use

\`\`\`sh
hf download ${repo} --repo-type dataset --include "${first?.path ?? "FOLDER"}/*" --local-dir sketches
yaqa-runner quantize MODEL --reuse sketches/${first?.path ?? "FOLDER"} --recipe w4a16 --calibration TEXT --output OUT
\`\`\`

\`yaqa-runner\` uses a sketch only when its fingerprint fits: the same weights, calibration tokens and settings. Another program may use the factors as they are. They hold sums over calibration text, no text, and no weights; whether a model's licence has a say in them is for you to judge.
`;
}
