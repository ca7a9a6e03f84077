import containers from "../../config/containers.json" with { type: "json" };

/** Kinds of models, as `config.json` calls them, that the runner builds ONNX graphs of. It reads the same list. */
export const ONNX_MODEL_TYPES: readonly string[] = containers.onnx.modelTypes;
