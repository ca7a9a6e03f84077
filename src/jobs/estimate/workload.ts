import type { SourceFacts } from "../../records/source.ts";

export type JobWorkload = {
	readonly facts: Pick<SourceFacts, "repo" | "parameters" | "weightBytes" | "linears" | "vocabulary" | "base">;
	/** How many variants are made. */
	readonly variants: number;
	readonly calibrationTokens: number;
	/** Of every text that variants are measured on, together. */
	readonly evaluationTokens: number;
	/** Half steps or rounds of the sketch. */
	readonly iterations: number;
	/** Over the calibration text, to tune the scales. */
	readonly tuningPasses: number;
	/** An earlier job's sketch serves. */
	readonly sketchReused: boolean;
};

/** Stages whose time grows with the model. */
export type WorkStage = "sketch" | "round" | "tune" | "evaluate";

export const STAGES: readonly WorkStage[] = ["sketch", "round", "tune", "evaluate"];

/** Floating-point operations of each stage. */
export type Work = Readonly<Record<WorkStage, number>>;

/** Linears as `[rows, columns, count]`; without headers' shapes, those of a plain decoder of that size. */
export function linearsOf(facts: JobWorkload["facts"]): NonNullable<SourceFacts["linears"]> {
	if (facts.linears !== undefined && facts.linears.length > 0) return facts.linears;
	// A block has about 12 h² parameters; depth grows with width as in published families.
	const hidden = Math.max(64, Math.cbrt((facts.parameters * 128) / 12));
	const blocks = Math.max(1, Math.round(facts.parameters / (12 * hidden * hidden)));
	return [
		{ rows: hidden, columns: hidden, count: 4 * blocks },
		{ rows: 2.7 * hidden, columns: hidden, count: 2 * blocks },
		{ rows: hidden, columns: 2.7 * hidden, count: blocks },
	];
}

/** What the stages of a job compute. A forward pass takes 2 operations a parameter and token, a backward pass 4. */
export function workOf(workload: JobWorkload): Work {
	const { facts, variants, calibrationTokens, evaluationTokens, iterations, tuningPasses } = workload;
	let contraction = 0;
	let rounding = 0;
	for (const { rows, columns, count } of linearsOf(facts)) {
		contraction += count * (rows * rows + columns * columns);
		rounding += count * rows * columns * (rows + columns);
	}
	const pass = 2 * facts.parameters;
	return {
		// Every half step contracts both sides; the passes that feed them are one a window, here taken as one a half step.
		sketch: workload.sketchReused ? 0 : calibrationTokens * iterations * (3 * pass + 2 * contraction),
		// Two-sided, one-sided and nearest rounding, and two factorisations.
		round: variants * 5 * rounding,
		// Forward passes of both models and one back, for each variant: those of equal codes share theirs.
		tune: variants * tuningPasses * calibrationTokens * 4 * pass,
		evaluate: evaluationTokens * pass * (1 + (tuningPasses > 0 ? 4 : 3) * variants),
	};
}
