import { transition } from "../../jobs/transitions.ts";
import { markdownCode, markdownText } from "../../publish/escape.ts";
import { formatEstimate, QUANTIZER_NAMES, shortSha } from "../../publish/figures.ts";
import { summarizeVariant } from "../../publish/variant-summary.ts";
import { isFinished, type JobRecord } from "../../records/job.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { isSaid } from "./is-said.ts";
import { refusalText, sentence } from "./render-refusal.ts";
import { jobLink, nextStep, type ReplyContext, shortNumber } from "./reply-context.ts";
import { stateOfVariant } from "./variant-rows.ts";

/** A job in words: what it was for, how it ended, and for every variant what was chosen against what. */
export function renderExplanation(context: ReplyContext, job: JobRecord, variants: readonly VariantRecord[]): string {
	const parts = [
		`${jobLink(context, job, `Job ${shortNumber(job)}`)} for commit ${markdownCode(shortSha(job.sourceSha))} is **${job.state}**${isSaid(job.state, job.statusText) ? "." : `: ${sentence(job.statusText)}`}`,
	];
	if (job.refusal !== null) parts.push(refusalText(job.refusal));
	for (const variant of variants.slice(0, 12)) parts.push(explainVariant(context, variant, isFinished(job.state)));
	if (variants.length > 12) parts.push(`And ${variants.length - 12} more variants.`);
	if (transition(job.state, "retry") !== null)
		parts.push(nextStep(context, `retry ${shortNumber(job)}`, "To try again"));
	return parts.join("\n\n");
}

function explainVariant(context: ReplyContext, variant: VariantRecord, ended: boolean): string {
	const name = markdownCode(variant.recipe);
	if (variant.refusal !== null) return `${name} failed. ${refusalText(variant.refusal)}`;
	const summary = summarizeVariant(variant, context.hubUrl);
	if (summary.klNats === null || summary.quantizer === null) {
		return ended ? `${name} was not made.` : `${name} is ${stateOfVariant(variant)}.`;
	}
	const { gptq, rtn } = summary.baselines;
	const others = [
		...(gptq === null ? [] : [`GPTQ ${formatEstimate(gptq)}`]),
		...(rtn === null ? [] : [`round-to-nearest ${formatEstimate(rtn)}`]),
	];
	const against = others.length === 0 ? "" : ` At the same size: ${others.join(", ")}.`;
	return `${name} is ${stateOfVariant(variant)}: the gate chose ${markdownText(QUANTIZER_NAMES[summary.quantizer])} on held-out text, with a KL of ${formatEstimate(summary.klNats)} nats a token.${against}`;
}
