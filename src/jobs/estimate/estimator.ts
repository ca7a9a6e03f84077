import type { Configuration } from "../../config/schema.ts";
import type { Refusal } from "../../errors.ts";
import { formatUsd } from "../../publish/figures.ts";
import type { SourceFacts } from "../../records/source.ts";
import { estimateJob, type JobEstimate } from "./estimate-job.ts";
import type { Hardware } from "./hardware.ts";
import type { MeasuredRate } from "./measured-rates.ts";

/** What a job for so many variants of a source comes to. */
export type Estimator = (request: {
	readonly facts: SourceFacts;
	readonly variants: number;
	readonly sketchReused: boolean;
}) => JobEstimate;

/** Why there is no machine at all. */
function noMachine({ runner }: Configuration): Refusal {
	if (runner.kind === "hf-jobs") {
		return {
			code: "runner-unavailable",
			message: `HF Jobs offers no hardware called ${runner.hfJobs.flavor}.`,
			remedy:
				"Whoever runs the bot sets runner.hfJobs.flavor to auto, or to one that `hf jobs hardware` lists, then retries the job.",
		};
	}
	return {
		code: "runner-unavailable",
		message: "This bot's machine has no GPU that can be seen, and its runs are to have one (runner.device is cuda).",
		remedy:
			"Whoever runs the bot installs NVIDIA's driver until `nvidia-smi` lists a GPU, sets runner.device to auto, or chooses another runner; then retries the job.",
	};
}

/** The estimator with the configuration's texts, the machines there are and what finished jobs took. */
export function createEstimator(
	configuration: Configuration,
	hardware: readonly Hardware[],
	rates: readonly MeasuredRate[],
): Estimator {
	const { calibration, evaluation, sketch, tuning } = configuration.quantization;
	// Without files of one's own there is one text for choosing and one for reporting.
	const texts = Math.max(1, evaluation.selection.length) + Math.max(1, evaluation.report.length);
	return ({ facts, variants, sketchReused }) => {
		const estimate = estimateJob(
			{
				facts,
				variants,
				calibrationTokens: calibration.sequences * calibration.length,
				evaluationTokens: texts * evaluation.sequences * evaluation.length,
				iterations: sketch.iterations,
				tuningPasses: tuning.passes,
				sketchReused,
			},
			hardware,
			rates,
			configuration.runner.timeoutSeconds / 60,
		);
		if (hardware.length > 0) return estimate;
		const refusal = noMachine(configuration);
		return { ...estimate, refusal, text: `${refusal.message} ${refusal.remedy}` };
	};
}

/** Why an estimate is not carried out, or `null`. */
export function refusalOfEstimate(estimate: JobEstimate, budget: Configuration["budget"]): Refusal | null {
	if (estimate.choice === null) {
		// The estimate of memory is rough. A try on a machine of one's own costs nothing and fails with the measured
		// reason; on a rented one it costs money.
		const canTryForNothing = estimate.estimates.some(({ hardware }) => hardware.microUsdPerMinute === 0);
		return canTryForNothing ? null : estimate.refusal;
	}
	const { microUsd } = estimate.choice;
	if (budget.perJobUsd === null || microUsd <= budget.perJobUsd * 1e6) return null;
	return {
		code: "not-permitted",
		message: `This job may cost ${formatUsd(microUsd)}; the ceiling for one is ${formatUsd(Math.round(budget.perJobUsd * 1e6))}. The estimate was: ${estimate.text}`,
		remedy: "Ask for fewer variants at a time, or have whoever runs the bot raise budget.perJobUsd.",
	};
}
