import { z } from "zod";

/** Causal language models whose every linear this version knows: plain decoders that transformers loads by itself. */
export const SUPPORTED_ARCHITECTURES = [
	"LlamaForCausalLM",
	"MistralForCausalLM",
	"Qwen2ForCausalLM",
	"Qwen3ForCausalLM",
] as const;

/** Far beyond any real model, far below what exhausts memory by itself. */
const BOUNDS = {
	hidden_size: 65_536,
	intermediate_size: 1_048_576,
	num_hidden_layers: 1_024,
	num_attention_heads: 4_096,
	num_key_value_heads: 4_096,
	head_dim: 8_192,
	vocab_size: 4_194_304,
	max_position_embeddings: 1_073_741_824,
} as const;

export type BoundedField = keyof typeof BOUNDS;
const BOUNDED_FIELDS = Object.keys(BOUNDS) as readonly BoundedField[];
const REQUIRED_FIELDS: readonly BoundedField[] = [
	"hidden_size",
	"intermediate_size",
	"num_hidden_layers",
	"num_attention_heads",
	"vocab_size",
];

/** The parts of `config.json` the bot looks at; everything else in it stays the runner's business. */
export const SourceConfig = z.looseObject({
	architectures: z.array(z.string().max(200)).max(16).nullish(),
	model_type: z.string().max(200).nullish(),
	auto_map: z.unknown().optional(),
	quantization_config: z.unknown().optional(),
});
export type SourceConfig = z.infer<typeof SourceConfig>;

/** What is wrong with the config's sizes, or `null`. Missing ones count where every supported model has them. */
export function absurdSize(config: SourceConfig): string | null {
	for (const field of BOUNDED_FIELDS) {
		const value = config[field];
		if (value === undefined || value === null) {
			if (REQUIRED_FIELDS.includes(field)) return `${field} is missing`;
			continue;
		}
		if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > BOUNDS[field]) {
			return `${field} must be a whole number from 1 to ${BOUNDS[field]}`;
		}
	}
	return null;
}

/** A size that `absurdSize` has accepted. */
export function sizeOf(config: SourceConfig, field: BoundedField): number {
	const value = config[field];
	if (typeof value !== "number")
		throw new Error(`config.json was not checked for ${field}. This is a bug in yaqa-bot.`);
	return value;
}
