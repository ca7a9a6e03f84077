import { markdownCode } from "../../publish/escape.ts";
import { formatBytes, formatChange, formatEstimate } from "../../publish/figures.ts";
import { VARIANT_STATE_WORDS } from "../../publish/variant-state-words.ts";
import { summarizeVariant } from "../../publish/variant-summary.ts";
import type { VariantRecord } from "../../records/variant.ts";
import type { ReplyContext } from "./reply-context.ts";

export function stateOfVariant(variant: VariantRecord): string {
	return VARIANT_STATE_WORDS[variant.state].phrase;
}

/**
 * One row a variant: what it is, where it is, and the figures of its manifest. `ended`: nobody works on them any more;
 * `newestSha`: variants of other commits are marked.
 */
export function variantRows(
	context: ReplyContext,
	variants: readonly VariantRecord[],
	ended = false,
	newestSha: string | null = null,
): string {
	const rows = variants.map((variant) => {
		const summary = summarizeVariant(variant, context.hubUrl);
		const kl = summary.klNats === null ? "–" : formatEstimate(summary.klNats);
		const change =
			summary.klNats === null ? null : formatChange(summary.klNats.mean, summary.baselines.gptq?.mean ?? null);
		const unmade = ended && variant.state !== "failed";
		const where =
			variant.state === "published"
				? `[${summary.repo}](${summary.url})${newestSha === null || newestSha === variant.sourceSha ? "" : ", of another commit"}`
				: unmade
					? "not made"
					: stateOfVariant(variant);
		return `| ${markdownCode(variant.recipe)} | ${where} | ${summary.bytes === null ? "–" : formatBytes(summary.bytes)} | ${kl} | ${change ?? "–"} |`;
	});
	return [
		"| Variant | Where | Size | KL, nats a token | Against GPTQ, same size |",
		"|---|---|---:|---:|---:|",
		...rows,
	].join("\n");
}
