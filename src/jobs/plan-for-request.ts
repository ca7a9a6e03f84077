import type { Configuration } from "../config/schema.ts";
import type { Refusal } from "../errors.ts";
import type { SourceFacts } from "../records/source.ts";
import { type Hardware, type MeasuredRate, type Plan, planJob, usd } from "./planner.ts";

/** What a job for so many variants of a source comes to. */
export type Planner = (request: {
	readonly facts: SourceFacts;
	readonly variants: number;
	readonly sketchReused: boolean;
}) => Plan;

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

/** The planner with the configuration's texts, the machines there are and what finished jobs took. */
export function createPlanner(
	configuration: Configuration,
	hardware: readonly Hardware[],
	rates: readonly MeasuredRate[],
): Planner {
	const { calibration, evaluation, sketch, tuning } = configuration.quantization;
	// Without files of one's own there is one text for choosing and one for reporting.
	const texts = Math.max(1, evaluation.selection.length) + Math.max(1, evaluation.report.length);
	return ({ facts, variants, sketchReused }) => {
		const plan = planJob(
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
		if (hardware.length > 0) return plan;
		const refusal = noMachine(configuration);
		return { ...plan, refusal, text: `${refusal.message} ${refusal.remedy}` };
	};
}

/** Why a plan is not carried out, or `null`. */
export function refusalOfPlan(plan: Plan, budget: Configuration["budget"]): Refusal | null {
	if (plan.choice === null) {
		// The estimate of memory is rough. A try on a machine of one's own costs nothing and fails with the measured
		// reason; on a rented one it costs money.
		const canTryForNothing = plan.estimates.some(({ hardware }) => hardware.microUsdPerMinute === 0);
		return canTryForNothing ? null : plan.refusal;
	}
	const { microUsd } = plan.choice;
	if (budget.perJobUsd === null || microUsd <= budget.perJobUsd * 1e6) return null;
	return {
		code: "not-permitted",
		message: `This job may cost ${usd(microUsd)}; the ceiling for one is ${usd(Math.round(budget.perJobUsd * 1e6))}. The plan was: ${plan.text}`,
		remedy: "Ask for fewer variants at a time, or have whoever runs the bot raise budget.perJobUsd.",
	};
}
