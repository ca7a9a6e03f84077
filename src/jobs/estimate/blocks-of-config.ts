import { z } from "zod";
import { languageConfigOf } from "../../fit/language-config.ts";
import type { PlannedLinear } from "./sweep-plan.ts";

/** A linear, and the share of all tokens that reaches it: less than 1 for the experts of a mixture. */
type ConfiguredLinear = PlannedLinear & { readonly tokenShare: number };

/** Blocks that are alike. */
export type BlockKind = {
	readonly count: number;
	readonly linears: readonly ConfiguredLinear[];
	/** Of one block, what no linear holds: routers. */
	readonly otherParameters: number;
};

/** A model as far as its configuration alone tells. */
export type ConfiguredModel = {
	readonly architecture: string;
	readonly hidden: number;
	readonly vocabulary: number;
	readonly blocks: readonly BlockKind[];
	/** Embedding and output layer, once where they are tied. */
	readonly outerParameters: number;
	readonly parameters: number;
	/** What every token goes through. */
	readonly activeParameters: number;
	/** What was taken for granted. */
	readonly assumptions: readonly string[];
};

type ConfiguredResult =
	| { readonly ok: true; readonly model: ConfiguredModel }
	| { readonly ok: false; readonly message: string };

const width = z.int().min(1).max(1_048_576);
const optional = width.nullish();
const few = z.int().min(0).max(65_536).nullish();

/** Sizes by the names that families give them. The bounds are far beyond any model, far below what exhausts memory. */
const Config = z.looseObject({
	architectures: z.array(z.string().max(200)).max(16).nullish(),
	model_type: z.string().max(200).nullish(),
	hidden_size: z.int().min(1).max(262_144),
	num_hidden_layers: z.int().min(1).max(1_024),
	num_attention_heads: z.int().min(1).max(4_096),
	num_key_value_heads: z.int().min(1).max(4_096).nullish(),
	head_dim: z.int().min(1).max(8_192).nullish(),
	intermediate_size: optional,
	vocab_size: z.int().min(1).max(4_194_304),
	tie_word_embeddings: z.boolean().nullish(),
	quantization_config: z.unknown().optional(),
	layer_types: z.array(z.string().max(100)).max(1_024).nullish(),
	n_routed_experts: few,
	num_experts: few,
	num_local_experts: few,
	num_experts_per_tok: few,
	moe_intermediate_size: optional,
	n_shared_experts: few,
	shared_expert_intermediate_size: z.int().min(0).max(1_048_576).nullish(),
	first_k_dense_replace: few,
	moe_layer_freq: z.int().min(1).max(1_024).nullish(),
	decoder_sparse_step: z.int().min(1).max(1_024).nullish(),
	mlp_only_layers: z.array(z.int().min(0)).max(1_024).nullish(),
	q_lora_rank: z.int().min(0).max(1_048_576).nullish(),
	kv_lora_rank: optional,
	qk_nope_head_dim: optional,
	qk_rope_head_dim: optional,
	v_head_dim: optional,
});
type Config = z.infer<typeof Config>;

/** Families with one matrix before the activation, or with several of them stored as one. */
const OTHER_FORMS: Readonly<Record<string, { readonly gated: boolean; readonly fused: boolean }>> = {
	gpt2: { gated: false, fused: true },
	gpt_neox: { gated: false, fused: true },
	opt: { gated: false, fused: false },
	phi: { gated: false, fused: false },
	phi3: { gated: true, fused: true },
};
const RENAMED: readonly (readonly [from: string, to: string])[] = [
	["n_embd", "hidden_size"],
	["n_layer", "num_hidden_layers"],
	["n_head", "num_attention_heads"],
	["n_inner", "intermediate_size"],
	["ffn_dim", "intermediate_size"],
];
/** Kinds of layers whose linears are those of attention. */
const ATTENTION = /attention$/;
const MOST_PARAMETERS = 2e12;

/** The blocks that a `config.json` describes: attention, with or without a latent, and plain or mixed feed-forward layers. */
export function blocksOfConfig(document: unknown): ConfiguredResult {
	const outer = z.record(z.string(), z.unknown()).safeParse(document);
	if (!outer.success) return { ok: false, message: "This is no config.json: it holds no JSON object." };
	const given: Record<string, unknown> = { ...languageConfigOf(outer.data) };
	for (const [from, to] of RENAMED) given[to] ??= given[from];
	const parsed = Config.safeParse(given);
	if (!parsed.success) {
		const [issue] = parsed.error.issues;
		return { ok: false, message: `config.json cannot be planned from: ${issue?.path.join(".")}: ${issue?.message}` };
	}
	const config = parsed.data;
	const strange = (config.layer_types ?? []).find((kind) => !ATTENTION.test(kind) || kind.startsWith("linear"));
	if (strange !== undefined || config["ssm_cfg"] !== undefined || config["mamba_d_state"] !== undefined) {
		return {
			ok: false,
			message: `A config.json does not say what linears layers of the kind ${JSON.stringify(strange ?? "mamba")} have. The repo's weights do: \`yaqa-bot plan OWNER/MODEL\`.`,
		};
	}
	const [first] = config.architectures ?? [];
	const blocks = kindsOf(config);
	if (blocks === null) return { ok: false, message: "config.json does not say how wide feed-forward layers are." };
	const model = modelOf(config, first ?? config.model_type ?? "unknown", blocks);
	if (model.parameters > MOST_PARAMETERS) {
		return {
			ok: false,
			message: `config.json describes ${model.parameters.toExponential(1)} parameters; 2e12 are the most.`,
		};
	}
	return { ok: true, model };
}

function modelOf(config: Config, architecture: string, blocks: readonly BlockKind[]): ConfiguredModel {
	const { hidden_size: hidden, vocab_size: vocabulary } = config;
	const tied = config.tie_word_embeddings ?? config.model_type === "gpt2";
	const outerParameters = vocabulary * hidden * (tied ? 1 : 2);
	const sum = (weigh: (linear: ConfiguredLinear) => number) =>
		blocks.reduce(
			(all, { count, linears, otherParameters }) =>
				all +
				count * linears.reduce((one, linear) => one + linear.rows * linear.columns * weigh(linear), otherParameters),
			0,
		);
	const assumptions = ["Weights are stored and computed with in bfloat16, on a processor in float32."];
	if (config.quantization_config != null) {
		assumptions.push(
			"The checkpoint is stored quantized: the plan is for its weights in bfloat16. The bot takes float8 and mxfp4 as publishers release them, and refuses every other form.",
		);
	}
	if (blocks.some(({ linears }) => linears.some(({ tokenShare }) => tokenShare < 1))) {
		assumptions.push("Every expert sees as many tokens as any other.");
	}
	return {
		architecture,
		hidden,
		vocabulary,
		blocks,
		outerParameters,
		parameters: outerParameters + sum(() => 1),
		activeParameters: vocabulary * hidden + sum(({ tokenShare }) => tokenShare),
		assumptions,
	};
}

/** The model's kinds of blocks; `null`: the width of feed-forward layers is not given. */
function kindsOf(config: Config): readonly BlockKind[] | null {
	const { num_hidden_layers: layers, hidden_size: hidden } = config;
	const attention = attentionOf(config);
	const form = OTHER_FORMS[config.model_type ?? ""] ?? { gated: true, fused: false };
	const inner = config.intermediate_size ?? (form.gated ? null : 4 * hidden);
	const experts = config.n_routed_experts ?? config.num_experts ?? config.num_local_experts ?? 0;
	const isMixed = (number: number) =>
		experts > 1 &&
		number >= (config.first_k_dense_replace ?? 0) &&
		(config.n_routed_experts == null
			? (number + 1) % (config.decoder_sparse_step ?? 1) === 0
			: number % (config.moe_layer_freq ?? 1) === 0) &&
		!(config.mlp_only_layers ?? []).includes(number);
	const mixed = Array.from({ length: layers }, (_, number) => number).filter(isMixed).length;
	const kinds: BlockKind[] = [];
	if (mixed < layers) {
		if (inner === null) return null;
		const linears = [...attention, ...feedForward(hidden, inner, form, "", 1)];
		kinds.push({ count: layers - mixed, linears, otherParameters: 0 });
	}
	if (mixed > 0) {
		const expertInner = config.moe_intermediate_size ?? inner;
		if (expertInner === null) return null;
		const share = Math.min(1, (config.num_experts_per_tok ?? 1) / experts);
		const shared = config.shared_expert_intermediate_size ?? (config.n_shared_experts ?? 0) * expertInner;
		const parts = Array.from({ length: experts }, (_, number) =>
			feedForward(hidden, expertInner, form, `expert ${number} `, share),
		).flat();
		const common = shared > 0 ? feedForward(hidden, shared, form, "shared ", 1) : [];
		kinds.push({ count: mixed, linears: [...attention, ...parts, ...common], otherParameters: experts * hidden });
	}
	return kinds;
}

function attentionOf(config: Config): readonly ConfiguredLinear[] {
	const { hidden_size: hidden, num_attention_heads: heads, kv_lora_rank: latent } = config;
	if (latent != null) {
		const [plain, rotary, value] = [
			config.qk_nope_head_dim ?? 128,
			config.qk_rope_head_dim ?? 64,
			config.v_head_dim ?? 128,
		];
		const rank = config.q_lora_rank ?? 0;
		const queries = heads * (plain + rotary);
		return [
			...(rank > 0
				? [all(rank, hidden, "attention"), all(queries, rank, "queries")]
				: [all(queries, hidden, "attention")]),
			all(latent + rotary, hidden, "attention"),
			all(heads * (plain + value), latent, "latent"),
			all(hidden, heads * value, "attention output"),
		];
	}
	const head = config.head_dim ?? Math.floor(hidden / heads);
	const keys = head * (config.num_key_value_heads ?? heads);
	const form = OTHER_FORMS[config.model_type ?? ""];
	const inputs =
		form?.fused === true
			? [all(heads * head + 2 * keys, hidden, "attention")]
			: [heads * head, keys, keys].map((rows) => all(rows, hidden, "attention"));
	return [...inputs, all(hidden, heads * head, "attention output")];
}

function feedForward(
	hidden: number,
	inner: number,
	form: { readonly gated: boolean; readonly fused: boolean },
	name: string,
	tokenShare: number,
): readonly ConfiguredLinear[] {
	const before = !form.gated ? [inner] : form.fused ? [2 * inner] : [inner, inner];
	return [
		...before.map((rows) => ({ rows, columns: hidden, input: `${name}feed-forward`, tokenShare })),
		{ rows: hidden, columns: inner, input: `${name}feed-forward output`, tokenShare },
	];
}

function all(rows: number, columns: number, input: string): ConfiguredLinear {
	return { rows, columns, input, tokenShare: 1 };
}
