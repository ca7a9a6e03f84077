import type { Configuration } from "../config/schema.ts";
import { type JobSpec, PROTOCOL_VERSION, parsedRecipe } from "../protocol/job-spec.ts";
import { storedRecipe } from "../protocol/recipe.ts";
import type { JobRecord } from "../records/job.ts";
import type { SourceBase } from "../records/source.ts";
import type { VariantRecord } from "../records/variant.ts";
import type { EarlierSketch } from "./stored-sketches.ts";

/** Where a source's snapshot is on this machine, and that of an adapter's base. */
export type SourceDirectories = { readonly source: string; readonly base: string | null };

function snapshotOf({ repo, sha }: SourceBase, path: string | null) {
	return { repo, revision: sha, ...(path === null ? {} : { path }) };
}

/** What a runner is told: everything it needs and nothing that lets it write anywhere. */
export function jobSpecOf(request: {
	readonly job: Pick<JobRecord, "id" | "fence" | "sourceRepo" | "sourceSha">;
	readonly variants: readonly Pick<VariantRecord, "id" | "recipe">[];
	readonly configuration: Configuration;
	/** Of an adapter: the model that it is merged onto. */
	readonly base: SourceBase | null;
	/** `null`: the run fetches the source itself, and an adapter's base. */
	readonly sourceDirectories: SourceDirectories | null;
	readonly earlierSketch: EarlierSketch;
	/** Where the run leaves its output; a runner that keeps its runs elsewhere puts its own folder there. */
	readonly stagingDirectory: string;
}): JobSpec {
	const { job, configuration, base, sourceDirectories: directories } = request;
	const { quantization, runner } = configuration;
	const { calibration, evaluation, sketch, tuning } = quantization;
	const { directory, stored } = request.earlierSketch;
	return {
		protocol: PROTOCOL_VERSION,
		job: job.id,
		fence: job.fence,
		source: {
			repo: job.sourceRepo,
			revision: job.sourceSha,
			...(directories === null ? {} : { path: directories.source }),
			...(base === null ? {} : { base: snapshotOf(base, directories?.base ?? null) }),
		},
		calibration:
			calibration.kind === "text"
				? {
						kind: "text",
						files: calibration.files,
						sequences: calibration.sequences,
						length: calibration.length,
						seed: calibration.seed,
					}
				: {
						kind: "self",
						sequences: calibration.sequences,
						length: calibration.length,
						seed: calibration.seed,
					},
		evaluation: { ...evaluation },
		sketch: {
			...sketch,
			...(directory === null ? {} : { reuse: directory }),
			...(stored === null ? {} : { stored }),
		},
		tuning: { ...tuning },
		variants: request.variants.map(({ id, recipe }) => ({ id, recipe: parsedRecipe(storedRecipe(recipe)) })),
		staging: { kind: "directory", path: request.stagingDirectory },
		limits: {
			...(runner.threads === null ? {} : { threads: runner.threads }),
			...(runner.memoryBytes === null ? {} : { memoryBytes: runner.memoryBytes }),
			device: runner.device,
		},
	};
}
