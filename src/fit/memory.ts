import { ownFiles } from "../protocol/importance-file.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { ModelShape } from "../protocol/model-shape.ts";
import type { Container } from "../protocol/recipe-table.ts";

/** What the keys and values of past tokens are kept in. */
export const CACHE_TYPES = ["f16", "q8_0", "q4_0"] as const;
export type CacheType = (typeof CACHE_TYPES)[number];

/** Bytes of one number: blocks of 32 hold a 16-bit scale besides. */
const CACHE_BYTES: Readonly<Record<CacheType, number>> = { f16: 2, q8_0: 34 / 32, q4_0: 18 / 32 };

/** Architectures whose windows llama.cpp keeps a short cache for. In others it keeps, and reads, the whole text. */
const WINDOWED_IN_LLAMA_CPP: ReadonlySet<string> = new Set([
	"Gemma2ForCausalLM",
	"Gemma3ForCausalLM",
	"Gemma3ForConditionalGeneration",
	"GptOssForCausalLM",
	"Cohere2ForCausalLM",
	"Olmo3ForCausalLM",
]);

/** Tokens of a prompt that llama.cpp computes at once (`--ubatch-size`), and the multiple its contexts are rounded up to. */
const BATCH_TOKENS = 512;
const CONTEXT_STEP = 256;

/** Bytes, by what they are for. */
export type RunMemory = {
	readonly weights: number;
	readonly cache: number;
	readonly states: number;
	/** Activations and logits of one batch. */
	readonly compute: number;
	readonly total: number;
};

export type RunSettings = { readonly container: Container; readonly context: number; readonly cache: CacheType };

function upTo(step: number, value: number): number {
	return Math.ceil(value / step) * step;
}

/** Tokens whose keys and values a layer keeps. */
function keptTokens(context: number, window: number | null, isGguf: boolean): number {
	if (window === null) return context;
	// The batch that is being computed comes on top of the window.
	return Math.min(context, isGguf ? upTo(CONTEXT_STEP, window + BATCH_TOKENS) + CONTEXT_STEP : window);
}

/**
 * What a run takes, as llama.cpp plans it with flash attention, which is its default: its own buffers, measured on seven
 * shapes of models, are met within 5 %. The other engines lay out the same things; theirs were not measured.
 */
export function runMemory(weights: number, shape: ModelShape | null, settings: RunSettings): RunMemory {
	if (shape === null) return { weights, cache: 0, states: 0, compute: 0, total: weights };
	const isGguf = settings.container === "gguf";
	const context = isGguf ? upTo(CONTEXT_STEP, settings.context) : settings.context;
	const windowed = !isGguf || WINDOWED_IN_LLAMA_CPP.has(shape.architecture);
	const bytes = isGguf ? CACHE_BYTES[settings.cache] : CACHE_BYTES.f16;
	let cache = 0;
	let mask = 0;
	const batch = Math.min(BATCH_TOKENS, context);
	for (const group of shape.attention) {
		const kept = keptTokens(context, windowed ? group.window : null, isGguf);
		cache += group.layers * kept * (group.keyWidth + group.valueWidth) * bytes;
		mask += 2 * kept * batch;
	}
	const states = 4 * shape.stateWidth;
	const { hidden, feedForward, vocabulary } = shape;
	const ofLogits = 4 * batch * (vocabulary + 2 * hidden);
	const ofLayer = 4 * batch * (4 * hidden + 3 * feedForward) + mask;
	const compute = Math.max(ofLogits, ofLayer);
	return { weights, cache, states, compute, total: weights + cache + states + compute };
}

const SHORT_CONTEXT = 1_024;

/** The longest context, in steps of 1024 and below that of 256, whose run takes no more than `memory`; `null`: none. */
export function longestContext(
	weights: number,
	shape: ModelShape | null,
	settings: Omit<RunSettings, "context"> & { readonly memory: number },
): number | null {
	if (shape === null) return null;
	const { memory, ...rest } = settings;
	const fits = (context: number): boolean => runMemory(weights, shape, { ...rest, context }).total <= memory;
	const trained = shape.contextLength ?? 131_072;
	if (fits(trained)) return trained;
	const step = fits(SHORT_CONTEXT) ? SHORT_CONTEXT : CONTEXT_STEP;
	let least = 0;
	let most = Math.ceil(trained / step);
	while (most - least > 1) {
		const middle = Math.floor((least + most) / 2);
		if (fits(middle * step)) least = middle;
		else most = middle;
	}
	return least === 0 ? null : least * step;
}

/** Files that an engine reads weights from. Companions for images are loaded only where somebody asks for them. */
export function weightFiles(
	manifest: Pick<Manifest, "files">,
): readonly { readonly path: string; readonly size: number }[] {
	return ownFiles(manifest).filter(
		({ path }) => /\.(?:gguf|safetensors|onnx|onnx_data(?:_\d+)?)$/.test(path) && !/(?:^|\/)mmproj-/.test(path),
	);
}

export function weightBytes(manifest: Pick<Manifest, "files">): number {
	return weightFiles(manifest).reduce((sum, file) => sum + file.size, 0);
}
