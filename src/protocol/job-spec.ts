import { z } from "zod";

import type { Recipe } from "./recipe.ts";
import { Container, RECIPES } from "./recipe-table.ts";

export const PROTOCOL_VERSION = 1;

/** Absolute; with a staging repo, the path of a file or folder in it that begins with `inputs/`. */
const absolutePath = z.string().min(1).max(4096);
export const repoName = z
	.string()
	.max(96 * 2 + 1)
	.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*\/[A-Za-z0-9][A-Za-z0-9._-]*$/, "a repo name looks like namespace/name");
export const commitSha = z.string().regex(/^[0-9a-f]{40}$/, "a commit sha has 40 hex digits");

/** One text that figures are measured on. `domain` names it on the card: "prose", "code". */
const EvaluationText = z.strictObject({
	domain: z.string().regex(/^[a-z0-9-]{1,32}$/),
	path: absolutePath,
});

const Calibration = z.discriminatedUnion("kind", [
	z.strictObject({
		kind: z.literal("text"),
		files: z.array(absolutePath).min(1).max(64),
		sequences: z.int().min(1).max(1_000_000),
		length: z.int().min(8).max(131_072),
		seed: z.int().min(0),
	}),
	z.strictObject({
		kind: z.literal("self"),
		sequences: z.int().min(1).max(1_000_000),
		length: z.int().min(8).max(131_072),
		seed: z.int().min(0),
	}),
]);

const Evaluation = z.strictObject({
	/** The gate chooses on these. Empty: sampled from the model itself. */
	selection: z.array(EvaluationText).max(16),
	/** The card's figures come from these, at least two domains where there are texts at all. Empty: sampled from the model itself. */
	report: z.array(EvaluationText).max(16),
	/** Sequences of each text. */
	sequences: z.int().min(2).max(100_000),
	length: z.int().min(8).max(131_072),
	/** Sequences whose reference log-probabilities are kept for the control plane to verify ONNX files against. */
	verificationSequences: z.int().min(1).max(64),
});

/** A folder of a data set repo at one commit. */
export const StoredSketch = z.strictObject({
	repo: repoName,
	revision: commitSha,
	path: z
		.string()
		.max(400)
		.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/),
});
export type StoredSketch = z.infer<typeof StoredSketch>;

const Sketch = z.strictObject({
	kind: z.enum(["a", "b"]),
	/** Half steps of the power iteration for `a` (an even number counts whole rounds); rounds for `b`. */
	iterations: z.int().min(1).max(16),
	/** Added to the factors' unit mean diagonal; doubled until Cholesky succeeds. */
	/** Of the factors' dampings; absent: chosen for each linear on held-out calibration tokens. */
	sigmaInput: z.number().min(0).max(10).optional(),
	sigmaOutput: z.number().min(0).max(10).optional(),
	/** A folder with the sketch of an earlier job; used when its fingerprint fits, else computed anew. */
	reuse: absolutePath.optional(),
	/** Where such a sketch is kept on the Hub: a run elsewhere fetches it with its read token. */
	stored: StoredSketch.optional(),
});

/** How long recipes with `tune=on` are tuned. */
const Tuning = z.strictObject({
	/** Over the calibration text; 0 for not at all. */
	passes: z.int().min(0).max(64).default(4),
});

/**
 * Where finished folders go. `hub`: a private repo that also holds this spec as `job.json` and, below `inputs/`, every
 * file that the spec names; `yaqa-runner remote` fetches them and uploads what the run made, in one commit.
 */
const Staging = z.discriminatedUnion("kind", [
	z.strictObject({ kind: z.literal("directory"), path: absolutePath }),
	z.strictObject({ kind: z.literal("hub"), repo: repoName }),
]);

/** A recipe with every option spelled out, so that the runner need not know defaults or how people write sizes. */
const ParsedRecipe = z.strictObject({
	/** The recipe's identity and, with other characters replaced, its folder. */
	canonical: z
		.string()
		.max(RECIPES.maximumCharacters)
		.regex(/^[a-z0-9][a-z0-9:_.,=-]*$/),
	name: z.string().min(1).max(32),
	container: Container,
	bits: z.int().min(0).max(16),
	group: z.int().min(1).nullable(),
	refineSweeps: z.int().min(0).max(RECIPES.refineSweeps.most),
	tune: z.boolean(),
	zero: z.boolean(),
	bitsPerWeight: z.number().min(1).max(32).nullable(),
	embeddingBits: z.int().min(1).max(16).nullable(),
	budgetBytes: z.int().min(1).nullable(),
});

export function parsedRecipe(recipe: Recipe): z.infer<typeof ParsedRecipe> {
	const { name, ...options } = recipe;
	return { ...options, name: name.name, container: name.container, bits: name.bits };
}

const RepoSnapshot = z.strictObject({
	repo: repoName,
	revision: commitSha,
	/** A folder that holds the snapshot. Without it the runner downloads the snapshot from the Hub's read side. */
	path: absolutePath.optional(),
});

/** What the control plane hands to a runner, as `job.json`. */
export const JobSpec = z.strictObject({
	protocol: z.literal(PROTOCOL_VERSION),
	job: z.uuid(),
	/** The job's attempt. A result that carries an older one is refused. */
	fence: z.int().min(1),
	source: RepoSnapshot.extend({
		/** The source is an adapter, and this the model that it is merged onto first. */
		base: RepoSnapshot.optional(),
	}),
	calibration: Calibration,
	evaluation: Evaluation,
	sketch: Sketch,
	tuning: Tuning.prefault({}),
	variants: z
		.array(z.strictObject({ id: z.uuid(), recipe: ParsedRecipe }))
		.min(1)
		.max(64),
	staging: Staging,
	/** Where a run elsewhere tells of its progress, and with what; it ends with the attempt. */
	progress: z
		.strictObject({
			url: z.url({ protocol: /^https?$/ }).max(1000),
			token: z.string().regex(/^[\x21-\x7e]{1,200}$/),
		})
		.optional(),
	limits: z.strictObject({
		threads: z.int().min(1).max(1024).optional(),
		memoryBytes: z.int().min(1).optional(),
		device: z.enum(["auto", "cpu", "cuda"]).default("auto"),
	}),
});
export type JobSpec = z.infer<typeof JobSpec>;
