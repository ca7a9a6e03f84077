import type { RequestPreview } from "../../jobs/estimate/preview-request.ts";
import { markdownCode, markdownText } from "../../publish/escape.ts";
import { formatBytes, formatCount, shortSha } from "../../publish/figures.ts";
import { nextStep, ofModel, type ReplyContext } from "./reply-context.ts";
import { stateOfVariant } from "./variant-rows.ts";

/** `asked`: the command that would carry it out. */
export function renderPlan(context: ReplyContext, plan: RequestPreview & { readonly ok: true }, asked: string): string {
	const rows = plan.variants.map((variant) => {
		const state = variant.existing === null ? "new" : stateOfVariant(variant.existing);
		const size = `${variant.isLimit ? "at most" : "about"} ${formatBytes(variant.bytes)}`;
		return `| ${markdownCode(variant.recipe)} | ${markdownCode(variant.targetRepo)} | ${size} | ${state} |`;
	});
	return [
		`**Plan** for commit ${markdownCode(shortSha(plan.sha))}${ofModel(context)}: ${markdownText(plan.architecture)}, ${formatCount(plan.parameters)} parameters. Nothing was started.`,
		["| Variant | Would go to | Size | State |", "|---|---|---:|---|", ...rows].join("\n"),
		nextStep(context, asked, "To make it"),
	].join("\n\n");
}
