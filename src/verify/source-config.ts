import { z } from "zod";

/**
 * Causal language models that the runner is tested with. It finds linears by structure and takes more than these, but
 * the bot promises only what was tried. Which containers can hold an architecture the runner says before it computes.
 */
export const SUPPORTED_ARCHITECTURES = [
	"Gemma2ForCausalLM",
	"Gemma3ForCausalLM",
	"GPT2LMHeadModel",
	"GPTNeoXForCausalLM",
	"LlamaForCausalLM",
	"MistralForCausalLM",
	"MixtralForCausalLM",
	"OPTForCausalLM",
	"Phi3ForCausalLM",
	"PhiForCausalLM",
	"Qwen2ForCausalLM",
	"Qwen3ForCausalLM",
	"Qwen3MoeForCausalLM",
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

type BoundedField = keyof typeof BOUNDS;
const BOUNDED_FIELDS = Object.keys(BOUNDS) as readonly BoundedField[];
const REQUIRED_FIELDS: readonly BoundedField[] = [
	"hidden_size",
	"num_hidden_layers",
	"num_attention_heads",
	"vocab_size",
];

/** Older families write some sizes under names of their own. */
const OTHER_NAMES: Readonly<Partial<Record<BoundedField, readonly string[]>>> = {
	hidden_size: ["n_embd"],
	intermediate_size: ["n_inner", "ffn_dim", "moe_intermediate_size"],
	num_hidden_layers: ["n_layer"],
	num_attention_heads: ["n_head"],
	max_position_embeddings: ["n_positions"],
};

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
		const given = namesOf(field).filter((name) => config[name] !== undefined && config[name] !== null);
		if (given.length === 0 && REQUIRED_FIELDS.includes(field)) return `${field} is missing`;
		for (const name of given) {
			const value = config[name];
			if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > BOUNDS[field]) {
				return `${name} must be a whole number from 1 to ${BOUNDS[field]}`;
			}
		}
	}
	return null;
}

function namesOf(field: BoundedField): readonly string[] {
	return [field, ...(OTHER_NAMES[field] ?? [])];
}

/** A size that `absurdSize` has accepted. */
export function sizeOf(config: SourceConfig, field: BoundedField): number {
	const value = namesOf(field)
		.map((name) => config[name])
		.find((candidate) => candidate !== undefined && candidate !== null);
	if (typeof value !== "number")
		throw new Error(`config.json was not checked for ${field}. This is a bug in yaqa-bot.`);
	return value;
}
