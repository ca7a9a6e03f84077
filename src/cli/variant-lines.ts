import { ownBytes } from "../protocol/importance-file.ts";
import type { Estimate, Manifest, Quantizer } from "../protocol/manifest.ts";
import { formatBytes, formatChange, formatEstimate } from "../publish/figures.ts";
import { table } from "./terminal.ts";

/** One variant as the command line reports it; the JSON document carries the same. */
export type VariantReport = {
	readonly recipe: string;
	readonly directory: string;
	readonly files: readonly { readonly path: string; readonly size: number; readonly sha256: string }[];
	readonly bytes: number;
	readonly klNats: Estimate | null;
	readonly baselines: { readonly rtn: Estimate | null; readonly gptq: Estimate | null };
	readonly gate: Quantizer;
	readonly verified: boolean;
	readonly checks: readonly string[];
};

export function reportVariant(options: {
	readonly manifest: Manifest;
	readonly directory: string;
	readonly verified: boolean;
	readonly checks: readonly string[];
}): VariantReport {
	const { manifest } = options;
	const estimate = (quantizer: Quantizer): Estimate | null => {
		const found = manifest.evaluation.measured.find((row) => row.quantizer === quantizer)?.report.klNats;
		return found === undefined ? null : { mean: found.mean, standardError: found.standardError };
	};
	return {
		recipe: manifest.recipe,
		directory: options.directory,
		files: manifest.files,
		bytes: ownBytes(manifest),
		klNats: estimate(manifest.quantizer),
		baselines: { rtn: estimate("rtn"), gptq: estimate("one-sided") },
		gate: manifest.gate.winner,
		verified: options.verified,
		checks: options.checks,
	};
}

export const FIGURES_LEGEND =
	"KL to the original on held-out text, lower is better. GPTQ, RTN (round to nearest): the same file so rounded. Gate: what is in the file.";

export function variantLines(variants: readonly VariantReport[]): string {
	const show = (estimate: Estimate | null): string => (estimate === null ? "–" : formatEstimate(estimate));
	const figures = table(
		[
			["RECIPE", "SIZE", "KL, NATS A TOKEN", "GPTQ", "RTN", "AGAINST GPTQ", "GATE", "VERIFIED", "FOLDER"],
			...variants.map((variant) => [
				variant.recipe,
				formatBytes(variant.bytes),
				show(variant.klNats),
				show(variant.baselines.gptq),
				show(variant.baselines.rtn),
				(variant.klNats === null ? null : formatChange(variant.klNats.mean, variant.baselines.gptq?.mean ?? null)) ??
					"–",
				variant.gate,
				variant.verified ? "yes" : "NO",
				variant.directory,
			]),
		],
		[1, 5],
	);
	return `${figures}\n${FIGURES_LEGEND}`;
}
