import { z } from "zod";
import { languageConfigOf } from "../fit/language-config.ts";

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
	hidden_size: ["n_embd", "d_model"],
	intermediate_size: ["n_inner", "ffn_dim", "moe_intermediate_size"],
	num_hidden_layers: ["n_layer", "n_layers", "num_layers"],
	num_attention_heads: ["n_head", "n_heads", "num_heads", "attention_heads"],
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

/**
 * What is wrong with the config's sizes, or `null`. Missing ones count where every supported model has them; configs of
 * image-text models leave out what is as usual. Towers are built by the same loader, so theirs are bounded too.
 */
export function absurdSize(config: SourceConfig): string | null {
	const language = languageConfigOf(config);
	if (language === config) {
		const missing = REQUIRED_FIELDS.find((field) => givenOf(config, field).length === 0);
		if (missing !== undefined) return `${missing} is missing`;
	}
	const parts = Object.entries(config).flatMap(([name, value]) => {
		const part = name.endsWith("_config") ? z.looseObject({}).safeParse(value) : null;
		return part?.success === true ? [part.data] : [];
	});
	for (const part of [language, ...parts]) {
		for (const field of BOUNDED_FIELDS) {
			const wrong = givenOf(part, field).find((name) => !isBounded(part[name], BOUNDS[field]));
			if (wrong !== undefined) return `${wrong} must be a whole number from 1 to ${BOUNDS[field]}`;
		}
	}
	return null;
}

/** Some families give a size for each layer. */
function isBounded(value: unknown, bound: number): boolean {
	const sizes: readonly unknown[] = Array.isArray(value) && value.length > 0 ? value : [value];
	return sizes.every((size) => typeof size === "number" && Number.isInteger(size) && size >= 1 && size <= bound);
}

function givenOf(config: Readonly<Record<string, unknown>>, field: BoundedField): readonly string[] {
	return namesOf(field).filter((name) => config[name] !== undefined && config[name] !== null);
}

function namesOf(field: BoundedField): readonly string[] {
	return [field, ...(OTHER_NAMES[field] ?? [])];
}

/** A size that `absurdSize` has accepted; `null`: the config leaves it as usual. */
export function sizeOf(config: SourceConfig, field: BoundedField): number | null {
	const language = languageConfigOf(config);
	const [name] = givenOf(language, field);
	const value = name === undefined ? null : language[name];
	return typeof value === "number" ? value : null;
}
