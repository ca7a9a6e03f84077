import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { ownFiles } from "../../src/protocol/importance-file.ts";
import type { Manifest } from "../../src/protocol/manifest.ts";
import { HARMLESS_KINDS } from "../../src/verify/llama-cpp-checks.ts";
import { judgeWithLlamaCpp } from "../../src/verify/llama-cpp-judge.ts";
import { onnxKl } from "../../src/verify/onnx-kl.ts";
import { PYTHON, ROOT, runProgram } from "../support/quantize-command.ts";

/** What an engine made of a finished folder. */
export type EngineWord = {
	readonly version: string;
	readonly engineKl: number;
	readonly tokensEqual: boolean;
	readonly generated: boolean;
};

export type Engine = {
	readonly name: string;
	readonly containers: readonly string[];
	/** Where it has kernels on processors for some widths alone. */
	readonly bits?: readonly number[];
	/** How far its KL may lie from the manifest's: engines that round activations, or compute in half precision. */
	readonly allowance: { readonly relative: number; readonly absoluteNats: number };
	/** Where only some models need it. */
	readonly models?: readonly string[];
	/** By model: what it says of every folder of one that other engines open, and why. */
	readonly unsupported?: Readonly<Record<string, { readonly word: RegExp; readonly why: string }>>;
	/** Why it cannot be asked on this machine, or `null`. */
	readonly missing: () => string | null;
	readonly open: (folder: string, manifest: Manifest, verificationPath: string) => Promise<EngineWord>;
};

const LIMITS = { milliseconds: 600_000, memoryBytes: 8e9, threads: 1 } as const;
const Word = z.object({
	version: z.string(),
	engineKl: z.number(),
	tokensEqual: z.boolean(),
	generated: z.boolean(),
});

function lastJson(output: { readonly code: number | null; readonly out: string; readonly errors: string }): EngineWord {
	const line = output.out.trim().split("\n").at(-1) ?? "";
	if (output.code !== 0 || line === "")
		throw new Error(`it ended with ${output.code}: ${output.errors.trim().slice(-600)}`);
	return Word.parse(JSON.parse(line));
}

function fileOf(manifest: Manifest, end: string): string {
	const found = ownFiles(manifest).find(({ path }) => path.endsWith(end));
	if (found === undefined) throw new Error(`the folder holds no ${end}`);
	return found.path;
}

async function openInLlamaCpp(folder: string, manifest: Manifest, verificationPath: string): Promise<EngineWord> {
	const verdict = await judgeWithLlamaCpp({
		modelPath: join(folder, fileOf(manifest, ".gguf")),
		verificationPath,
		limits: LIMITS,
	});
	if (verdict.kind === "loaded") throw new Error("llama.cpp measured nothing");
	if (verdict.kind !== "measured") throw new Error(verdict.reason);
	const { sequences, tokenizer, greedy } = verdict.measurement;
	const positions = sequences.reduce((sum, one) => sum + one.positions, 0);
	const engineKl = sequences.reduce((sum, one) => sum + one.klNats * one.positions, 0) / positions;
	const said = manifest.engine?.klNats;
	if (said === undefined || Math.abs(engineKl - said.mean) > said.standardError + 1e-9) {
		throw new Error(`the manifest says a KL of ${said?.mean} in llama.cpp, a fresh child measures ${engineKl}`);
	}
	return {
		version: verdict.version,
		engineKl,
		tokensEqual:
			tokenizer !== null &&
			tokenizer.opening === null &&
			tokenizer.end === null &&
			tokenizer.different.every(({ kind }) => HARMLESS_KINDS.has(kind)),
		// A random model's next tokens are near ties: the KL says whether they are the original's.
		generated: greedy !== null && greedy.tokens > 0,
	};
}

async function openInOnnxRuntime(folder: string, manifest: Manifest, verificationPath: string): Promise<EngineWord> {
	const graphPath = join(folder, fileOf(manifest, ".onnx"));
	const result = await onnxKl({ graphPath, verificationPath, limits: LIMITS });
	if (!result.ok) throw new Error(result.reason);
	return { version: "onnxruntime-node", engineKl: result.kl.klNats, tokensEqual: true, generated: true };
}

function python(interpreter: string, engine: string, environment: Readonly<Record<string, string>> = {}) {
	return async (folder: string, _manifest: Manifest, verificationPath: string): Promise<EngineWord> =>
		lastJson(
			await runProgram(
				interpreter,
				[join(ROOT, "test/engines/open_folder.py"), engine, folder, verificationPath],
				environment,
			),
		);
}

const GPTQMODEL = join(ROOT, "gpu-runner/.peers/gptqmodel");
const MLX = join(ROOT, "gpu-runner/.peers/mlx");
const VLLM = join(ROOT, ".cache/engines/vllm");
const VLLM_ENVIRONMENT = { VLLM_CPU_KVCACHE_SPACE: "1", VLLM_ENABLE_V1_MULTIPROCESSING: "0" };

export const ENGINES: readonly Engine[] = [
	{
		name: "llama.cpp",
		containers: ["gguf"],
		allowance: { relative: 0.25, absoluteNats: 0.004 },
		missing: () => null,
		open: openInLlamaCpp,
	},
	{
		name: "onnxruntime",
		containers: ["onnx"],
		allowance: { relative: 0.02, absoluteNats: 1e-5 },
		missing: () => null,
		open: openInOnnxRuntime,
	},
	{
		name: "transformers.js",
		containers: ["onnx"],
		allowance: { relative: 0.02, absoluteNats: 1e-5 },
		missing: () => null,
		open: async (folder, manifest, verificationPath) => {
			const dtype = /model_(\w+)\.onnx$/.exec(fileOf(manifest, ".onnx"))?.[1] ?? "fp32";
			const script = join(ROOT, "test/engines/transformers-js.ts");
			const name = dtype === "quantized" ? "q8" : dtype;
			return lastJson(await runProgram(process.execPath, [script, folder, name, verificationPath]));
		},
	},
	{
		name: "transformers",
		containers: ["compressed-tensors"],
		allowance: { relative: 0.02, absoluteNats: 1e-5 },
		missing: () => null,
		open: python(PYTHON, "transformers"),
	},
	{
		name: "gptqmodel",
		containers: ["gptq"],
		allowance: { relative: 0.1, absoluteNats: 0.002 },
		missing: () =>
			existsSync(join(GPTQMODEL, "whole"))
				? null
				: "no environment: gpu-runner/.venv/bin/python gpu-runner/benchmarks/peer_environments.py gptqmodel",
		unsupported: {
			phi3: {
				word: /Missing required quantized weights in checkpoint.*gate_proj\.qweight/s,
				why: "gptqmodel 7.7 takes the fused gate_up_proj apart before it loads, and opens only folders that hold gate_proj and up_proj, as it writes them itself; vLLM 0.32 does not open those",
			},
		},
		// Compiled, the same sums take a minute of C++ for every shape.
		open: python(join(GPTQMODEL, "bin/python"), "gptqmodel", { TORCHDYNAMO_DISABLE: "1" }),
	},
	{
		name: "mlx-lm",
		containers: ["mlx"],
		allowance: { relative: 0.02, absoluteNats: 1e-4 },
		missing: () =>
			existsSync(join(MLX, "whole"))
				? null
				: "no environment: gpu-runner/.venv/bin/python gpu-runner/benchmarks/peer_environments.py mlx",
		open: python(join(MLX, "bin/python"), "mlx-lm"),
	},
	{
		name: "transformers, decoded",
		containers: ["gptq"],
		models: ["phi3"],
		allowance: { relative: 0.02, absoluteNats: 1e-5 },
		missing: () => null,
		open: python(PYTHON, "plain-gptq"),
	},
	{
		name: "vllm",
		containers: ["compressed-tensors", "gptq"],
		bits: [4],
		allowance: { relative: 0.1, absoluteNats: 0.004 },
		missing: () =>
			existsSync(join(VLLM, "whole"))
				? null
				: "no environment: gpu-runner/.venv/bin/python test/engines/install_vllm.py",
		open: python(join(VLLM, "bin/python"), "vllm", VLLM_ENVIRONMENT),
	},
];
