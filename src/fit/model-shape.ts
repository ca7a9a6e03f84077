import { z } from "zod";
import type { ModelShape } from "../protocol/model-shape.ts";
import { languageConfigOf } from "./language-config.ts";

const size = z.int().min(1).max(4_194_304);
/** Null and absent are one: configurations of older families leave fields out that newer ones set to null. */
const optional = <Schema extends z.ZodType>(schema: Schema) => schema.nullish().transform((value) => value ?? null);

/** Fields that say how attention is laid out. Sizes of older families come under names of their own. */
const Fields = z.looseObject({
	architectures: optional(z.array(z.string().max(200)).max(16)).catch(null),
	model_type: optional(z.string().max(200)).catch(null),
	hidden_size: optional(size),
	n_embd: optional(size),
	intermediate_size: optional(size),
	moe_intermediate_size: optional(size),
	num_experts_per_tok: optional(z.int().min(1).max(1_024)),
	n_inner: optional(size),
	ffn_dim: optional(size),
	num_hidden_layers: optional(z.int().min(1).max(1_024)),
	n_layer: optional(z.int().min(1).max(1_024)),
	num_attention_heads: optional(size),
	n_head: optional(size),
	num_key_value_heads: optional(size),
	head_dim: optional(size),
	vocab_size: optional(size),
	max_position_embeddings: optional(z.int().min(1).max(1_073_741_824)),
	n_positions: optional(size),
	sliding_window: optional(z.int().min(1).max(1_073_741_824)).catch(null),
	use_sliding_window: optional(z.boolean()).catch(null),
	max_window_layers: optional(z.int().min(0)).catch(null),
	sliding_window_pattern: optional(z.int().min(1)).catch(null),
	_sliding_window_pattern: optional(z.int().min(1)).catch(null),
	layer_types: optional(z.array(z.string().max(60)).max(1_024)),
	// Latent attention keeps one compressed vector a token.
	kv_lora_rank: optional(size),
	qk_rope_head_dim: optional(size),
	// Gated delta rule.
	linear_num_value_heads: optional(size),
	linear_num_key_heads: optional(size),
	linear_key_head_dim: optional(size),
	linear_value_head_dim: optional(size),
	linear_conv_kernel_dim: optional(size),
});
type Fields = z.infer<typeof Fields>;

type LayerKind = "full" | "window" | "state";

const KINDS: ReadonlyMap<string, LayerKind> = new Map([
	["full_attention", "full"],
	["attention", "full"],
	["sliding_attention", "window"],
	["chunked_attention", "window"],
	["linear_attention", "state"],
]);

/** What each layer is; `null`: one of them is of a kind whose memory is not known here. */
function layerKinds(fields: Fields, layers: number): readonly LayerKind[] | null {
	const { layer_types: types, sliding_window: window } = fields;
	if (types !== null) {
		const kinds = types.slice(0, layers).map((type) => KINDS.get(type));
		if (kinds.length < layers) return null;
		return kinds.every((kind) => kind !== undefined) ? kinds : null;
	}
	const all = Array.from({ length: layers }, (_, index) => index);
	const every = fields.sliding_window_pattern ?? fields._sliding_window_pattern;
	if (window === null || fields.use_sliding_window === false) return all.map(() => "full");
	switch (fields.model_type) {
		case "qwen2":
		case "qwen3":
		case "qwen2_moe":
		case "qwen3_moe": {
			// Off unless the configuration turns it on, and then for the upper layers only.
			const from = fields.use_sliding_window === true ? (fields.max_window_layers ?? 0) : layers;
			return all.map((index) => (index >= from ? "window" : "full"));
		}
		case "gemma2":
			return all.map((index) => (index % 2 === 0 ? "window" : "full"));
		case "gemma3":
		case "gemma3_text":
			return all.map((index) => ((index + 1) % (every ?? 6) === 0 ? "full" : "window"));
		default:
			return all.map(() => "window");
	}
}

/** Numbers that one layer of the gated delta rule keeps: its state and the tail of its convolution. */
function stateWidthOf(fields: Fields): number | null {
	const { linear_num_value_heads: valueHeads, linear_num_key_heads: keyHeads } = fields;
	const { linear_key_head_dim: keyWidth, linear_value_head_dim: valueWidth, linear_conv_kernel_dim: kernel } = fields;
	if (valueHeads === null || keyHeads === null || keyWidth === null || valueWidth === null) return null;
	const convolved = 2 * keyHeads * keyWidth + valueHeads * valueWidth;
	return valueHeads * keyWidth * valueWidth + Math.max(0, (kernel ?? 1) - 1) * convolved;
}

/** What the fields say where they are all there. */
function sizesOf(fields: Fields) {
	const hidden = fields.hidden_size ?? fields.n_embd;
	const layers = fields.num_hidden_layers ?? fields.n_layer;
	const heads = fields.num_attention_heads ?? fields.n_head;
	const vocabulary = fields.vocab_size;
	if (hidden === null || layers === null || heads === null || vocabulary === null) return null;
	const dense = fields.intermediate_size ?? fields.n_inner ?? fields.ffn_dim ?? 4 * hidden;
	const feedForward =
		fields.num_experts_per_tok === null ? dense : (fields.moe_intermediate_size ?? dense) * fields.num_experts_per_tok;
	return { hidden, layers, heads, vocabulary, feedForward };
}

/** The model's shape by its `config.json`; `null`: the configuration does not say it, or in a way not known here. */
export function shapeOfConfig(config: unknown): ModelShape | null {
	const outer = z.looseObject({ text_config: z.looseObject({}).nullish() }).safeParse(config);
	if (!outer.success) return null;
	const parsed = Fields.safeParse(languageConfigOf(outer.data));
	if (!parsed.success) return null;
	const fields = parsed.data;
	const sizes = sizesOf(fields);
	if (sizes === null) return null;
	const { hidden, layers, heads, vocabulary, feedForward } = sizes;
	const kinds = layerKinds(fields, layers);
	const state = stateWidthOf(fields);
	if (kinds === null || (kinds.includes("state") && state === null)) return null;
	const headWidth = fields.head_dim ?? Math.floor(hidden / heads);
	const usual = (fields.num_key_value_heads ?? heads) * headWidth;
	const latent = fields.kv_lora_rank === null ? null : fields.kv_lora_rank + (fields.qk_rope_head_dim ?? 0);
	const widths = latent === null ? { keyWidth: usual, valueWidth: usual } : { keyWidth: latent, valueWidth: 0 };
	const counted = (kind: LayerKind): number => kinds.filter((one) => one === kind).length;
	return {
		architecture: fields.architectures?.[0] ?? fields.model_type ?? "",
		hidden,
		feedForward,
		vocabulary,
		layers,
		contextLength: fields.max_position_embeddings ?? fields.n_positions,
		attention: [
			{ layers: counted("full"), ...widths, window: null },
			{ layers: counted("window"), ...widths, window: fields.sliding_window },
		].filter((group) => group.layers > 0),
		stateWidth: counted("state") * (state ?? 0),
	};
}
