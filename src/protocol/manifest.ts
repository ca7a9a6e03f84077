import { z } from "zod";
import { commitSha, repoName } from "./job-spec.ts";

const MANIFEST_VERSION = 1;

export const sha256Hex = z.string().regex(/^[0-9a-f]{64}$/);
/** A path inside a published folder: relative, forward slashes, no dot segments. */
export const publishedPath = z
	.string()
	.min(1)
	.max(512)
	.regex(/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/)
	.refine((path) => !path.split("/").some((part) => part === "." || part === ".."), "no dot segments");

export const Estimate = z.object({ mean: z.number(), standardError: z.number().min(0) });
export type Estimate = z.infer<typeof Estimate>;

/** KL(original ‖ quantized) in nats a token, natural log; the standard error clusters by sequence. */
export const Metrics = z.object({
	klNats: Estimate.extend({ median: z.number(), p90: z.number(), p99: z.number() }),
	/** Share of tokens whose most likely next token is the same. */
	topOneAgreement: z.number().min(0).max(1),
	perplexity: z.object({ original: z.number(), quantized: z.number(), ratio: z.number() }),
	sequences: z.int().min(1),
	tokens: z.int().min(1),
});
export type Metrics = z.infer<typeof Metrics>;

/** `two-sided-tuned`: the codes of `two-sided`, with scales tuned under the true KL. */
export const Quantizer = z.enum(["two-sided-tuned", "two-sided", "one-sided", "rtn"]);
export type Quantizer = z.infer<typeof Quantizer>;

/** One quantizer's file, measured on the report split. `byDomain` is keyed by the texts' domains. */
export const Measured = z.object({
	quantizer: Quantizer,
	/** Bytes of all published files of this quantizer, manifest excluded: equal for every row of one manifest. */
	bytes: z.int().min(1),
	report: Metrics,
	byDomain: z.record(z.string(), Metrics),
});
export type Measured = z.infer<typeof Measured>;

export const LayerEvidence = z.object({
	name: z.string(),
	shape: z.tuple([z.int(), z.int()]),
	type: z.string(),
	/** tr(H_O E H_I Eᵀ) of each quantizer. */
	proxyError: z.object({ twoSided: z.number(), oneSided: z.number(), rtn: z.number() }),
	effectiveRankOutput: z.number(),
	effectiveRankInput: z.number(),
	/** Estimated cosine similarity of H_O ⊗ H_I to the true Fisher; `null` when it was not estimated. */
	cosineSimilarity: z.number().nullable(),
	sigmaInput: z.number(),
	sigmaOutput: z.number(),
});
export type LayerEvidence = z.infer<typeof LayerEvidence>;

/** `manifest.json`, published beside the files it describes. */
export const Manifest = z.object({
	manifest: z.literal(MANIFEST_VERSION),
	job: z.string(),
	fence: z.int().min(1),
	variant: z.string(),
	recipe: z.string(),
	createdAt: z.iso.datetime(),
	source: z.object({
		repo: repoName,
		revision: commitSha,
		license: z.string().nullable(),
		/** The earlier commit whose run made and measured these weights; since then they are the same. */
		measuredRevision: commitSha.optional(),
	}),
	files: z.array(z.object({ path: publishedPath, size: z.int().min(0), sha256: sha256Hex })).min(1),
	generator: z.object({ name: z.literal("yaqa-runner"), version: z.string() }),
	versions: z.record(z.string(), z.string()),
	device: z.object({ kind: z.enum(["cpu", "cuda"]), name: z.string(), driver: z.string().nullable() }),
	seeds: z.record(z.string(), z.int()),
	calibration: z.object({
		kind: z.string(),
		sha256: sha256Hex,
		sequences: z.int(),
		length: z.int(),
		tokens: z.int(),
	}),
	sketch: z.object({
		kind: z.enum(["a", "b"]),
		key: z.string(),
		iterations: z.int(),
		/** Whether an earlier job's sketch served. */
		reused: z.boolean(),
	}),
	seconds: z.record(z.string(), z.number()),
	/** The quantizer whose files these are. */
	quantizer: Quantizer,
	gate: z.object({
		selection: z.array(z.object({ quantizer: Quantizer, klNats: Estimate })).min(1),
		winner: Quantizer,
		reason: z.string(),
	}),
	/**
	 * Where every linear has a type of its own: what was predicted, and the mix against the best single type within the
	 * same budget, both measured on the selection split. `published` says which of them these files are. The budget is
	 * one of bits a weight of the linears, or of bytes of all files but the manifest.
	 */
	mixed: z
		.object({
			targetBitsPerWeight: z.number().nullable(),
			targetBytes: z.int().min(1).nullable().optional(),
			bitsPerWeight: z.number(),
			predictedKlNats: z.number().min(0),
			klNats: Estimate,
			uniform: z.object({
				type: z.string(),
				bitsPerWeight: z.number(),
				predictedKlNats: z.number().min(0),
				klNats: Estimate,
			}),
			published: z.enum(["mixed", "uniform"]),
		})
		.nullable()
		.optional(),
	evaluation: z.object({
		convention: z.string(),
		texts: z.array(
			z.object({
				split: z.enum(["selection", "report"]),
				domain: z.string(),
				sha256: sha256Hex,
				sequences: z.int(),
				length: z.int(),
				tokens: z.int(),
			}),
		),
		measured: z.array(Measured).min(1),
	}),
	/** KL of the published files over the tokens of `verification.safetensors`; the control plane computes it again. */
	verification: z.object({ klNats: z.number(), sequences: z.int(), positions: z.int() }),
	layers: z.array(LayerEvidence),
	/** Weights of two dimensions that stay as they were, and why. */
	untouched: z.array(z.object({ name: z.string(), reason: z.string(), type: z.string() })),
});
export type Manifest = z.infer<typeof Manifest>;
