/** What loads each container, as people choose it. */
export const CONTAINER_LABELS = [
	["gguf", "GGUF: llama.cpp, Ollama"],
	["onnx", "ONNX: onnxruntime, browsers"],
	["compressed-tensors", "compressed-tensors: vLLM"],
	["gptq", "GPTQ: vLLM, gptqmodel"],
	["mlx", "MLX: mlx-lm, LM Studio on Macs"],
] as const;
