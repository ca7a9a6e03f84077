import type { Manifest } from "../../protocol/manifest.ts";
import type { Hardware } from "./hardware.ts";
import { type Work, type WorkStage, workOf } from "./workload.ts";

/** Manifests do not say how many passes tuned them; tuning does the same kind of work as sketching. */
const LEARNED_STAGES = ["sketch", "round", "evaluate"] as const;

/** Seconds a floating-point operation, as finished jobs had them on a device. */
export type MeasuredRate = {
	/** As manifests name the device. */
	readonly device: string;
	readonly stage: (typeof LEARNED_STAGES)[number];
	readonly secondsPerOperation: number;
};

function median(values: readonly number[]): number | null {
	const sorted = values.toSorted((one, other) => one - other);
	return sorted[Math.floor(sorted.length / 2)] ?? null;
}

/** Manifests name the device in full ("NVIDIA H200"), lists in short ("H200"); L4 is not L40S. */
function isSameDevice(device: string, hardware: Hardware): boolean {
	const words = (text: string) => ` ${text.toLowerCase().replaceAll(/[^a-z0-9]+/g, " ")} `;
	const name = hardware.accelerator?.model ?? hardware.title;
	return words(device).includes(words(name));
}

/** What finished jobs say of a stage on such a machine; `null`: none ran there. Tuning does the same kind of work as sketching. */
export function measuredRate(rates: readonly MeasuredRate[], stage: WorkStage, hardware: Hardware): number | null {
	const learned = stage === "tune" ? "sketch" : stage;
	return median(
		rates
			.filter((rate) => rate.stage === learned && isSameDevice(rate.device, hardware))
			.map((rate) => rate.secondsPerOperation),
	);
}

/** What a finished variant teaches. `variants`: how many its job made, since the time of rounding is the job's. */
export function ratesOf(
	manifest: Manifest,
	source: { readonly parameters: number; readonly variants: number },
): readonly MeasuredRate[] {
	const linears = manifest.layers.map(({ shape: [rows, columns] }) => ({ rows, columns, count: 1 }));
	const work = workOf({
		facts: { repo: manifest.source.repo, parameters: source.parameters, weightBytes: 0, linears },
		variants: source.variants,
		calibrationTokens: manifest.calibration.tokens,
		evaluationTokens: manifest.evaluation.texts.reduce((sum, text) => sum + text.tokens, 0),
		iterations: manifest.sketch.iterations,
		tuningPasses: manifest.evaluation.measured.some(({ quantizer }) => quantizer === "two-sided-tuned") ? 1 : 0,
		sketchReused: manifest.sketch.reused,
	});
	// A variant's own measuring is a share of the job's.
	const done: Work = { ...work, evaluate: work.evaluate / Math.max(1, source.variants) };
	return LEARNED_STAGES.flatMap((stage) => {
		const seconds = manifest.seconds[stage];
		if (seconds === undefined || seconds <= 0 || done[stage] <= 0) return [];
		return [{ device: manifest.device.name, stage, secondsPerOperation: seconds / done[stage] }];
	});
}
