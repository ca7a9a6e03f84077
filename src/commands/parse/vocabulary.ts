import { editDistance, nearestWord } from "../../protocol/recipe.ts";
import { type Container, RECIPE_NAMES, RECIPES } from "../../protocol/recipe-table.ts";
import { COMMANDS, type CommandName, QUANTIZE_OPTIONS } from "../command-table.ts";

export const CONTAINER_WORDS: ReadonlyMap<string, Container> = new Map([
	["gguf", "gguf"],
	["llama.cpp", "gguf"],
	["llamacpp", "gguf"],
	["ollama", "gguf"],
	["onnx", "onnx"],
	["onnxruntime", "onnx"],
	["transformers.js", "onnx"],
	["compressed-tensors", "compressed-tensors"],
	["vllm", "compressed-tensors"],
	["sglang", "compressed-tensors"],
	["gptq", "gptq"],
	["mlx", "mlx"],
	["mlx-lm", "mlx"],
	["mlx_lm", "mlx"],
]);

export const POLITE_WORDS: ReadonlySet<string> = new Set(
	(
		"a an the this that it in into to of for from as at on and also with me us i we you my our your model repo please pls " +
		"thanks thank hi hello hey dear want need like would could can give have get a variant variants version versions file " +
		"files format quantized quantised quantization weights bit bits did do does is was it's fail failed happen happened job jobs " +
		"how what which when will be so far now there everything last newest latest commit fit fits within under most"
	).split(" "),
);

/**
 * Words of a question, a report or thanks. What is said in them about variants asks for nothing, and a run costs money:
 * where one comes before the command, or there is no command, the bot asks back.
 */
export const TELLING_WORDS: ReadonlySet<string> = new Set(
	"thanks thank did do does is was it's fail failed happen happened how what when will be so far there".split(" "),
);

/** Commands that change something. The others may be asked for in a question. */
export const ACTING_COMMANDS: ReadonlySet<CommandName> = new Set(["quantize", "cancel", "retry", "approve"]);

/** Formats that people know and this bot does not write, with the nearest that it does. */
export const OTHER_FORMATS: ReadonlyMap<string, { readonly word: string; readonly name: string }> = new Map(
	[
		{
			known: "awq autoawq bnb bitsandbytes nf4 hqq marlin",
			word: "vllm",
			name: "compressed-tensors, for vLLM and SGLang",
		},
		{ known: "w8a8", word: "w8a16", name: "w8a16" },
		{ known: "exl2 exl3 ggml", word: "gguf", name: "GGUF" },
		{ known: "openvino tensorrt coreml", word: "onnx", name: "ONNX" },
	].flatMap(({ known, word, name }) => known.split(" ").map((other) => [other, { word, name }] as const)),
);

export const OPTION_KEYS: ReadonlySet<string> = new Set(RECIPES.options);
export const SETTING_KEYS: readonly string[] = [...QUANTIZE_OPTIONS.map((option) => option.key), ...OPTION_KEYS];
export const COMMAND_WORDS: ReadonlyMap<string, CommandName> = new Map(
	// A question begins with its word; further on in a line, "which" is a relative pronoun.
	COMMANDS.filter((command) => command.name !== "which").flatMap((command) =>
		[command.name, ...command.aliases].map((word) => [word, command.name] as const),
	),
);
export const KNOWN_WORDS: readonly string[] = [
	...COMMAND_WORDS.keys(),
	...CONTAINER_WORDS.keys(),
	...RECIPE_NAMES.map((recipe) => recipe.name),
	...QUANTIZE_OPTIONS.map((option) => option.key),
	"all",
	"which",
	"4bit",
	"8bit",
];
/** Bits that a word asks for: "8bit", "8-bit", "bits=8", "int8", "q8". */
export function bitsOf(token: string): number | null {
	const match = /^(?:bits?=)?([1-9]\d?)-?bits?$|^bits?=([1-9]\d?)$|^(?:int|q)([1-9])$/.exec(token);
	const digits = match?.[1] ?? match?.[2] ?? match?.[3];
	return digits === undefined ? null : Number(digits);
}

/** The word that was meant; a short word is near few others. */
export function nearWord(word: string, candidates: readonly string[]): string | null {
	const near = nearestWord(word, candidates);
	const most = word.length <= 3 ? 1 : Math.max(2, Math.floor(word.length / 3));
	return near !== null && editDistance(word, near) <= most ? near : null;
}
