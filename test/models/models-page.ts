import { CONTAINERS, type KindResult, type Row } from "./rows.ts";

/** `docs/models.md`: what became of every architecture in every container. */
export function modelsPage(results: ReadonlyMap<string, KindResult>): string {
	const made = [...results].filter(([, { unmade }]) => unmade === null);
	const architectures = new Set(made.map(([kind]) => kind.replace(/:.*/, ""))).size;
	const counted = CONTAINERS.map((container) => {
		const right = made.filter(([, { rows }]) =>
			rows.some((row) => row.container === container && row.outcome === "ok"),
		);
		return `${right.length} ${NAMES[container]}`;
	});
	const lines = [
		"# Models",
		"",
		"Written by `npm run test:models`: a tiny random checkpoint of every architecture, quantized to 8 bits in every",
		"container and opened by the engine named below. A percentage is the share of the checkpoint's numbers that are",
		"quantized (tiny models have large embeddings: the share of a real one is higher), and stands where the engine",
		"computes what the manifest says. A number points to the reason below, told before anything is computed. `kind:form`",
		"is a form that checkpoints of a kind are released in beside the usual one.",
		"",
		`${made.length} checkpoints of ${architectures} architectures; right in their engine: ${counted.join(", ")}.`,
		"",
		"| container | judged by |",
		"|---|---|",
		"| GGUF | llama.cpp: KL and tokens |",
		"| ONNX | onnxruntime: KL |",
		"| compressed-tensors | transformers, which loads the folder by the compressed-tensors library: KL |",
		"| GPTQ | transformers, on weights decoded by the format's definition: KL |",
		"",
		"llama.cpp's kernels for AMX end on multi-head latent attention (DeepSeek, GLM 4.7 Flash and others; llama.cpp's issue",
		"19184 tells the same of LFM2): on processors that have AMX those rows are of llama.cpp without them.",
		"",
		`| architecture | ${CONTAINERS.map((name) => NAMES[name]).join(" | ")} | left in 16 bits, beside embeddings |`,
		`|---|${CONTAINERS.map(() => "---").join("|")}|---|`,
	];
	const reasons = new Map<string, number>();
	const cell = (row: Row | undefined): string => {
		if (row === undefined) return "–";
		if (row.outcome === "ok") return `${Math.round(100 * (row.share ?? 0))} %`;
		const told = reasonOf(row);
		const number = reasons.get(told) ?? reasons.size + 1;
		reasons.set(told, number);
		return `(${number})`;
	};
	for (const [kind, { rows }] of made.toSorted(([left], [right]) => left.localeCompare(right, "en"))) {
		const cells = CONTAINERS.map((container) => cell(rows.find((row) => row.container === container)));
		const kept = new Set(rows.flatMap((row) => row.kept).filter((reason) => !/embedding/.test(reason)));
		lines.push(`| ${kind} | ${cells.join(" | ")} | ${[...kept].map(escaped).join("; ")} |`);
	}
	lines.push("", "## Reasons", "");
	for (const [reason, number] of reasons) lines.push(`${number}. ${escaped(reason)}`);
	return `${lines.join("\n")}\n`;
}

const NAMES: Readonly<Record<string, string>> = {
	gguf: "GGUF",
	onnx: "ONNX",
	"compressed-tensors": "compressed-tensors",
	gptq: "GPTQ",
};

function reasonOf(row: Row): string {
	// The kind's own name would give each a reason of its own.
	const told = row.note
		.replaceAll(/\s+/g, " ")
		.replace(/^\S+ cannot be written: /, "")
		.replace(/not for '[^']*'/, "not for this one")
		.replace(/does not know \w+\./, "does not know it.")
		.replace(/by name of \w+|weights of \w+ by name/, "weights by name");
	return row.outcome === "refused" ? told : `Not right: ${told}`;
}

function escaped(text: string): string {
	return text.replaceAll(/[|<>*_`]/g, (letter) => `\\${letter}`);
}
