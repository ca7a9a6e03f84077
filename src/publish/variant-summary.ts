import { ownBytes } from "../protocol/importance-file.ts";
import type { Estimate, Quantizer } from "../protocol/manifest.ts";
import { parseRecipe } from "../protocol/recipe.ts";
import type { Container } from "../protocol/recipe-table.ts";
import type { VariantRecord, VariantState } from "../records/variant.ts";

/** What a table shows of one variant; the JSON twin of the pages has the same fields. */
export type VariantSummary = {
	readonly id: string;
	readonly source: { readonly repo: string; readonly sha: string };
	readonly recipe: string;
	readonly container: Container | null;
	readonly bits: number | null;
	readonly state: VariantState;
	/** It failed because its job was cancelled or superseded. */
	readonly cancelled: boolean;
	readonly repo: string;
	readonly url: string;
	readonly jobId: string;
	readonly bytes: number | null;
	/** KL(original ‖ quantized), nats a token, on the report texts. */
	readonly klNats: Estimate | null;
	/** At equal bytes; `null` where it was not measured. */
	readonly baselines: { readonly gptq: Estimate | null; readonly rtn: Estimate | null };
	readonly topOneAgreement: number | null;
	readonly perplexityRatio: number | null;
	readonly quantizer: Quantizer | null;
	readonly publishedAt: string | null;
	/** Whether the source has a newer commit; `null`: not looked up. */
	readonly ofOlderCommit: boolean | null;
};

export function summarizeVariant(variant: VariantRecord, hubUrl: string): VariantSummary {
	const parsed = parseRecipe(variant.recipe);
	const manifest = variant.manifest;
	const measured = manifest?.evaluation.measured ?? [];
	const published = measured.find((row) => row.quantizer === manifest?.quantizer);
	const estimateOf = (quantizer: Quantizer): Estimate | null => {
		const found = measured.find((row) => row.quantizer === quantizer)?.report.klNats;
		return found === undefined ? null : { mean: found.mean, standardError: found.standardError };
	};
	return {
		id: variant.id,
		source: { repo: variant.sourceRepo, sha: variant.sourceSha },
		recipe: variant.recipe,
		container: parsed.ok ? parsed.recipe.name.container : null,
		bits: parsed.ok && parsed.recipe.name.bits > 0 ? parsed.recipe.name.bits : null,
		state: variant.state,
		cancelled: variant.state === "failed" && variant.refusal?.code === "cancelled",
		repo: variant.targetRepo,
		url: `${hubUrl}/${variant.targetRepo}`,
		jobId: variant.jobId,
		bytes: manifest === null ? null : ownBytes(manifest),
		klNats:
			published === undefined
				? null
				: { mean: published.report.klNats.mean, standardError: published.report.klNats.standardError },
		baselines: { gptq: estimateOf("one-sided"), rtn: estimateOf("rtn") },
		topOneAgreement: published?.report.topOneAgreement ?? null,
		perplexityRatio: published?.report.perplexity.ratio ?? null,
		quantizer: manifest?.quantizer ?? null,
		publishedAt: variant.publishedAt?.toISOString() ?? null,
		ofOlderCommit: variant.isOlder ?? null,
	};
}
