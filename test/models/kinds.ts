import { z } from "zod";
import { PYTHON, ROOT, runProgram } from "../support/quantize-command.ts";

/** The kinds of which `tiny_architectures.py` makes tiny checkpoints, each with the settings that are its own. */
export async function kindsToTry(): Promise<Readonly<Record<string, string>>> {
	const script =
		"import json, sys; sys.path.insert(0, 'gpu-runner/tests'); import tiny_kinds, tiny_settings; print(json.dumps({kind: json.dumps(tiny_settings.own_settings(kind)) for kind in tiny_kinds.KINDS}))";
	const { code, out, errors } = await runProgram(PYTHON, ["-c", script]);
	if (code !== 0) throw new Error(`the list of kinds in ${ROOT} cannot be read: ${errors.slice(-1000)}`);
	return z.record(z.string(), z.string()).parse(JSON.parse(out));
}

/** Unlike kinds for the short form, with the containers that hold each. */
export const SHORT_KINDS: Readonly<Record<string, readonly string[]>> = {
	// Transposed linears, positions that are learnt.
	gpt2: ["gguf", "gptq"],
	// Fused projections; an output layer tied to the embedding; an original in float8.
	phi3: ["gguf", "onnx", "compressed-tensors", "gptq"],
	"qwen2:tied": ["gguf", "onnx", "compressed-tensors", "gptq"],
	"qwen3:float8": ["gguf", "onnx", "compressed-tensors", "gptq"],
	// Experts; fused ones with biases, in mxfp4.
	mixtral: ["gguf", "compressed-tensors", "gptq"],
	"gpt_oss:mxfp4": ["gguf", "compressed-tensors", "gptq"],
	// Hybrids: delta nets, with images; Mamba beside attention.
	qwen3_5: ["gguf", "compressed-tensors", "gptq"],
	falcon_h1: ["gguf", "compressed-tensors", "gptq"],
};
