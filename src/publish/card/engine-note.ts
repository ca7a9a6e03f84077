import type { EngineFigures, Manifest } from "../../protocol/manifest.ts";
import { markdownCode, markdownText } from "../escape.ts";
import { formatEstimate, formatNumber, formatPercent } from "../figures.ts";
import { recipeNameOf } from "./published-measurement.ts";

const MAXIMUM_NAMED = 4;
/** MLX is made for Apple's processors, which the bot has none of. */
const NOT_RUN =
	"> These figures are of the weights as the format defines them, in the original's own architecture: the files were **decoded, not run**. Their structure was checked. The project's tests hold that mlx-lm decodes to the same weights and computes the same from them.";

/** Whose figures those are, and what of the engine differs from the original; or that no engine measured the files. */
export function engineNote(manifests: readonly Manifest[]): readonly string[] {
	const notes = manifests.flatMap((manifest) => {
		const recipe = markdownCode(manifest.recipe);
		if (manifest.unmeasured != null) {
			return [
				`> ${recipe} **was not measured by the engine that runs it** (${markdownText(manifest.unmeasured.reason, 200)}): the operator lets such files pass. Its figures are of the decoded weights.`,
			];
		}
		return manifest.engine == null ? [] : [measuredBy(manifest, manifest.engine)];
	});
	if (manifests.some((manifest) => recipeNameOf(manifest).container === "mlx")) notes.push(NOT_RUN);
	return notes.length === 0 ? [] : [notes.join("\n\n")];
}

function measuredBy(manifest: Manifest, engine: EngineFigures): string {
	const { tokens, greedy, windowKlNats, kernels } = engine;
	const { verification } = manifest;
	const window =
		windowKlNats == null || verification.window == null
			? ""
			: ` Beyond the sliding window of ${verification.window.tokens} tokens its KL is ${formatNumber(windowKlNats)}.`;
	const unreached =
		verification.window != null && verification.window.length == null
			? ` The sliding window of ${verification.window.tokens} tokens is longer than what was run.`
			: "";
	const different =
		tokens.different.length === 0
			? ""
			: ` It cuts otherwise, of small consequence: ${tokens.different
					.slice(0, MAXIMUM_NAMED)
					.map((text) => markdownCode(text.slice(0, 80)))
					.join(", ")}.`;
	return [
		`${markdownCode(manifest.recipe)} **in ${markdownText(engine.name, 60)} ${markdownText(engine.version, 100)}**: KL ${formatEstimate(engine.klNats)} nats a token and the same top token at ${formatPercent(engine.topOneAgreement)} of ${engine.positions} positions${kernels == null ? "" : `, with its kernels for ${markdownText(kernels.used, 60)}`};`,
		`the decoded weights give ${formatNumber(verification.klNats)} there${engine.name === "llama.cpp" ? ": llama.cpp multiplies them with activations of 8 bits" : ""}.${window}${unreached}`,
		...(tokens.texts === 0
			? []
			: [`Its tokenizer cuts ${tokens.equal} of ${tokens.texts} hard texts as the original's.${different}`]),
		...(greedy.tokens === 0
			? []
			: [
					`Taking the most likely token each time, it writes the original's first ${greedy.equal} of ${greedy.tokens} tokens.`,
				]),
		...(kernels?.ended == null
			? []
			: [
					`**Its kernels for ${markdownText(kernels.ended, 60)} end on these files**: on such a processor, use a build without them.`,
				]),
	].join(" ");
}
