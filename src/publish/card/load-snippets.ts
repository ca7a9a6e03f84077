import { ownFiles } from "../../protocol/importance-file.ts";
import type { Manifest } from "../../protocol/manifest.ts";
import type { Container } from "../../protocol/recipe-table.ts";

/** How a runtime opens a variant. The tests take these strings as they are and run those that can run there. */
export type LoadSnippet = {
	readonly runtime:
		| "llama.cpp"
		| "node-llama-cpp"
		| "Ollama"
		| "LM Studio"
		| "mlx-lm"
		| "transformers"
		| "onnxruntime-node"
		| "transformers.js"
		| "vLLM"
		| "SGLang";
	readonly language: "sh" | "python" | "js";
	readonly code: string;
	/** Whether a test runs this code against a Hub, as it is pasted. */
	readonly ran: boolean;
};

const PROMPT = "The sea was";

/** `repo` and the manifest's paths are checked names: they hold nothing that could end a string. */
export function loadSnippets(request: {
	readonly repo: string;
	readonly container: Container;
	readonly manifest: Manifest;
	readonly hubUrl: string;
}): LoadSnippet[] {
	const { repo, container, manifest, hubUrl } = request;
	switch (container) {
		case "gguf":
			return ggufSnippets(repo, manifest, hubUrl);
		case "onnx":
			return onnxSnippets(repo, manifest);
		case "compressed-tensors":
			return compressedTensorsSnippets(repo, manifest);
		case "gptq":
			return [
				{ runtime: "vLLM", language: "sh", code: `vllm serve ${repo}`, ran: false },
				{ runtime: "SGLang", language: "sh", code: sglangCode(repo), ran: false },
				{
					runtime: "transformers",
					language: "python",
					code: `# needs: pip install gptqmodel optimum\n${transformersCode(`"${repo}"`)}`,
					ran: false,
				},
			];
		case "mlx":
			return [
				{
					runtime: "mlx-lm",
					language: "sh",
					code: `# needs: pip install mlx-lm\nmlx_lm.generate --model ${repo} --prompt "${PROMPT}"`,
					ran: false,
				},
				{ runtime: "LM Studio", language: "sh", code: `lms get ${hubUrl}/${repo}\nlms load`, ran: false },
			];
	}
}

/** Servers have kernels of their own for 4 and 8 bits; vLLM takes other widths through another package, without zero points. */
function compressedTensorsSnippets(repo: string, manifest: Manifest): LoadSnippet[] {
	// FP4 and FP8 have names without a width, and kernels as the usual widths have.
	const bits = Number(/^w(\d)a16/.exec(manifest.recipe)?.[1] ?? 4);
	const zero = /,zero=on\b/.test(manifest.recipe);
	const usual = bits === 4 || bits === 8;
	const snippets: LoadSnippet[] = [];
	if (usual) snippets.push({ runtime: "vLLM", language: "sh", code: `vllm serve ${repo}`, ran: false });
	else if (!zero)
		snippets.push({
			runtime: "vLLM",
			language: "sh",
			code: `# needs: pip install humming\nvllm serve ${repo}`,
			ran: false,
		});
	if (usual && !zero) snippets.push({ runtime: "SGLang", language: "sh", code: sglangCode(repo), ran: false });
	snippets.push({ runtime: "transformers", language: "python", code: transformersCode(`"${repo}"`), ran: true });
	return snippets;
}

function sglangCode(repo: string): string {
	return `python -m sglang.launch_server --model-path ${repo}`;
}

function ggufSnippets(repo: string, manifest: Manifest, hubUrl: string): LoadSnippet[] {
	const file =
		ownFiles(manifest)
			.map((entry) => entry.path)
			.filter((path) => path.endsWith(".gguf"))
			.toSorted()[0] ?? "";
	// A mix has no type's name to be found by; both find it by its file's.
	const type = /^gguf:([a-z0-9_]+)/.exec(manifest.recipe)?.[1]?.toUpperCase();
	const wanted = type === undefined ? `${repo} --hf-file ${file}` : `${repo}:${type}`;
	return [
		{ runtime: "llama.cpp", language: "sh", code: `llama-cli -hf ${wanted} -p "${PROMPT}"`, ran: false },
		{ runtime: "Ollama", language: "sh", code: `ollama run hf.co/${repo}:${type ?? file}`, ran: false },
		{
			runtime: "LM Studio",
			language: "sh",
			code: `lms get ${hubUrl}/${repo}${type === undefined ? "" : `@${type.toLowerCase()}`}\nlms load`,
			ran: false,
		},
		{ runtime: "node-llama-cpp", language: "js", code: nodeLlamaCode(repo, file), ran: true },
		{
			runtime: "transformers",
			language: "python",
			code: transformersCode(`"${repo}", gguf_file="${file}"`),
			ran: true,
		},
	];
}

/** llama.cpp in Node. */
function nodeLlamaCode(repo: string, file: string): string {
	return `import { writeFile } from "node:fs/promises";
import { downloadFile } from "@huggingface/hub";
import { getLlama, LlamaCompletion } from "node-llama-cpp";

const blob = await downloadFile({ repo: "${repo}", path: "${file}" });
await writeFile("${file}", blob.stream());
const llama = await getLlama();
const model = await llama.loadModel({ modelPath: "${file}" });
const context = await model.createContext();
const completion = new LlamaCompletion({ contextSequence: context.getSequence() });
console.log("${PROMPT}" + (await completion.generateCompletion("${PROMPT}", { maxTokens: 20 })));
await llama.dispose();`;
}

function transformersCode(source: string): string {
	return `from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(${source})
model = AutoModelForCausalLM.from_pretrained(${source})
inputs = tokenizer("${PROMPT}", return_tensors="pt")
output = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=20)
print(tokenizer.decode(output[0], skip_special_tokens=True))`;
}

/** The name transformers.js knows a file by, from what stands between `model` and `.onnx`. */
const DTYPES: ReadonlyMap<string, string> = new Map([
	["_q4", "q4"],
	["_q4f16", "q4f16"],
	["_quantized", "q8"],
	["_q8", "q8"],
	["_q2", "q2"],
	["_q2f16", "q2f16"],
]);

function onnxSnippets(repo: string, manifest: Manifest): LoadSnippet[] {
	const paths = manifest.files.map((entry) => entry.path);
	const graph = paths.find((path) => path.endsWith(".onnx")) ?? "";
	const dtype = DTYPES.get(/model(\w*)\.onnx$/.exec(graph)?.[1] ?? "") ?? "q4";
	const wanted = paths.filter((path) => path.startsWith("onnx/"));
	const needed = /,embedding=/.test(manifest.recipe) ? "// needs: onnxruntime-node 1.23 or later\n" : "";
	return [
		{
			runtime: "transformers.js",
			language: "js",
			code: `import { pipeline } from "@huggingface/transformers";

const generate = await pipeline("text-generation", "${repo}", { dtype: "${dtype}" });
const [answer] = await generate("${PROMPT}", { max_new_tokens: 20 });
console.log(answer.generated_text);`,
			ran: true,
		},
		{
			runtime: "onnxruntime-node",
			language: "js",
			code: `${needed}import { writeFile } from "node:fs/promises";
import { downloadFile } from "@huggingface/hub";
import * as ort from "onnxruntime-node";

for (const path of ${JSON.stringify(wanted)}) {
  const blob = await downloadFile({ repo: "${repo}", path });
  await writeFile(path.split("/").at(-1), Buffer.from(await blob.arrayBuffer()));
}
const session = await ort.InferenceSession.create("${graph.split("/").at(-1) ?? ""}");
const ids = BigInt64Array.from([1n, 2n, 3n]); // token ids from tokenizer.json
const feeds = {};
for (const { name, type, shape } of session.inputMetadata) {
  if (name === "input_ids") feeds[name] = new ort.Tensor("int64", ids, [1, ids.length]);
  else if (name === "attention_mask") feeds[name] = new ort.Tensor("int64", ids.map(() => 1n), [1, ids.length]);
  else if (name === "position_ids") feeds[name] = new ort.Tensor("int64", ids.map((_, at) => BigInt(at)), [1, ids.length]);
  else feeds[name] = new ort.Tensor(type, type === "float16" ? new Uint16Array(0) : new Float32Array(0), [1, shape[1], 0, shape[3]]); // empty cache
}
const { logits } = await session.run(feeds);
console.log(logits.dims);`,
			ran: true,
		},
	];
}
