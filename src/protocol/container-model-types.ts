import containers from "../../config/containers.json" with { type: "json" };
import type { Container } from "./recipe-table.ts";

type ModelTypes = {
	/** Words before the list. */
	readonly written: string;
	/** Kinds of models, as `config.json` calls them. The runner reads the same list. */
	readonly types: readonly string[];
};

/** What kinds of models a container is written of; `null`: only tensors tell. */
export const CONTAINER_MODEL_TYPES: Readonly<Record<Container, ModelTypes | null>> = {
	gguf: null,
	onnx: { written: "ONNX graphs are built for", types: containers.onnx.modelTypes },
	"compressed-tensors": null,
	gptq: null,
	mlx: { written: "MLX folders are written for", types: containers.mlx.modelTypes },
};
