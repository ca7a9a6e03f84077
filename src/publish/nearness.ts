import type { Estimate } from "../protocol/manifest.ts";

/**
 * What a KL divergence means to somebody who chooses a file. The steps are those between which tables of publishers
 * change their words: an 8-bit file measures below .001, the usual 4-bit ones of large models between .01 and .04.
 */
const STEPS: readonly { readonly below: number; readonly words: string }[] = [
	{ below: 0.001, words: "as the original, for every purpose" },
	{ below: 0.01, words: "hardly to be told from the original" },
	{ below: 0.04, words: "near: the usual choice" },
	{ below: 0.1, words: "somewhat off: where the nearer ones do not fit" },
	{ below: 0.3, words: "clearly off: only where nothing else fits" },
];

export function nearnessWords(klNats: Pick<Estimate, "mean"> | null): string {
	if (klNats === null || !Number.isFinite(klNats.mean)) return "not measured";
	return STEPS.find((step) => klNats.mean < step.below)?.words ?? "far from the original";
}
