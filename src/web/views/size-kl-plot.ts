import { type PlotPoint, plotSvg } from "../../publish/plot.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import type { Html } from "../html.ts";

/** What was measured of a variant: its own files, and the baselines of the same bytes. */
function pointsOf(variant: VariantSummary): readonly PlotPoint[] {
	const { bytes, recipe, klNats, baselines } = variant;
	if (bytes === null || klNats === null) return [];
	const point = (quantizer: PlotPoint["quantizer"], estimate: typeof klNats | null, published = false): PlotPoint[] =>
		estimate === null ? [] : [{ label: recipe, bytes, quantizer, published, klNats: estimate }];
	const own = variant.quantizer ?? "two-sided";
	return [
		...point(own, klNats, true),
		...(own === "one-sided" ? [] : point("one-sided", baselines.gptq)),
		...(own === "rtn" ? [] : point("rtn", baselines.rtn)),
	];
}

export function plotPoints(variants: readonly VariantSummary[]): readonly PlotPoint[] {
	return variants.flatMap(pointsOf);
}

/** The plot of the cards, for a page; `null` where nothing was measured. The table beside it holds the same figures. */
export function sizeKlPlot(variants: readonly VariantSummary[]): Html | null {
	const points = plotPoints(variants);
	return points.length === 0 ? null : { markup: plotSvg({ title: "", points }) };
}
