import type { Refusal } from "../../errors.ts";
import { explainChoice, gigabytes } from "./explain-choice.ts";
import type { Hardware } from "./hardware.ts";
import { estimateOn, type MachineEstimate } from "./machine-estimate.ts";
import type { MeasuredRate } from "./measured-rates.ts";
import type { JobWorkload } from "./workload.ts";

/** What a job needs and what it costs on each kind of machine. */
export type JobEstimate = {
	readonly workload: JobWorkload;
	/** Cheapest first, then fastest; those that do not fit last. */
	readonly estimates: readonly MachineEstimate[];
	readonly choice: MachineEstimate | null;
	/** Why nothing can be chosen. */
	readonly refusal: Refusal | null;
	/** The choice in words. */
	readonly text: string;
};

/** How long the run takes on the machine that was chosen. */
export function plannedSeconds(estimate: Pick<JobEstimate, "choice">): number | null {
	return estimate.choice === null ? null : estimate.choice.minutes * 60;
}

/**
 * From the source's config and safetensors headers alone; what machines there are, and how fast earlier jobs were, is
 * handed in.
 *
 * The cheapest machine that holds the job and is done in time, `limitMinutes`; where none is, the fastest that holds it,
 * since an estimate is no reason not to try.
 */
export function estimateJob(
	workload: JobWorkload,
	hardware: readonly Hardware[],
	rates: readonly MeasuredRate[] = [],
	limitMinutes = Number.POSITIVE_INFINITY,
): JobEstimate {
	const all = hardware.map((one) => estimateOn(workload, one, rates, limitMinutes));
	const rank = (one: MachineEstimate) => (one.fits ? (one.inTime ? 0 : 1) : 2);
	const estimates = all.toSorted(
		(one, other) =>
			rank(one) - rank(other) ||
			(rank(one) === 1 ? one.minutes - other.minutes : 0) ||
			one.microUsd - other.microUsd ||
			one.minutes - other.minutes,
	);
	const [first] = estimates;
	if (first?.fits === true) {
		return { workload, estimates, choice: first, refusal: null, text: explainChoice(first, estimates) };
	}
	const largest = estimates.toSorted((one, other) => other.availableBytes - one.availableBytes)[0];
	const message =
		largest === undefined
			? "There is no machine to run it on."
			: `${workload.facts.repo} needs about ${gigabytes(largest.neededBytes)} of memory; the largest ${largest.hardware.accelerator === null ? "machine" : "accelerator"}, of ${largest.hardware.title} of ${largest.hardware.runner}, has ${gigabytes(largest.availableBytes)}.`;
	const remedy = "Whoever runs the bot can give it a larger machine, or another runner.";
	return {
		workload,
		estimates,
		choice: null,
		refusal: { code: "too-large", message, remedy },
		text: `${message} ${remedy}`,
	};
}
