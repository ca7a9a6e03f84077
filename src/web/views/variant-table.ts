import { formatBytes, formatChange, formatEstimate, formatPercent, shortSha } from "../../publish/figures.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import { type Html, html } from "../html.ts";
import { variantBadge } from "./state-badge.ts";
import { timeElement } from "./time-element.ts";

/** Three bars on one scale: ours, one-sided GPTQ, round to nearest. The numbers stand in the row as text. */
function comparison(variant: VariantSummary): Html | null {
	const { klNats, baselines } = variant;
	if (klNats === null || baselines.gptq === null || baselines.rtn === null) return null;
	const rows = [
		{ name: "ours", value: klNats.mean },
		{ name: "gptq", value: baselines.gptq.mean },
		{ name: "rtn", value: baselines.rtn.mean },
	];
	const largest = Math.max(...rows.map((row) => row.value));
	if (!(largest > 0) || !Number.isFinite(largest)) return null;
	return html`<svg class="compare" viewBox="0 0 110 14" width="110" height="14" aria-hidden="true">${rows.map(
		(row, index) =>
			html`<rect class="${row.name}" x="0" y="${index * 5}" height="4" rx="1.5" width="${Math.max(1.5, (row.value / largest) * 110).toFixed(1)}"/>`,
	)}</svg>`;
}

function figure(text: string | null): Html | string {
	return text ?? html`<span class="quiet">not measured</span>`;
}

/** The table of variants. `withSource`: the rows are of many models. `newestSha`: marks variants of older commits. */
export function variantTable(options: {
	readonly variants: readonly VariantSummary[];
	readonly caption: string;
	readonly withSource: boolean;
	/** Unfinished variants link to their job, except on its own page. */
	readonly withJob: boolean;
	readonly newestSha: string | null;
	readonly now: Date;
}): Html {
	const { variants, withSource, newestSha, now } = options;
	return html`<div class="scroll" tabindex="0"><table class="cards">
<caption>${options.caption}</caption>
<thead><tr>
<th scope="col">${withSource ? "Model and variant" : "Variant"}</th>
<th scope="col" class="number">Size</th>
<th scope="col">KL, nats a token</th>
<th scope="col" class="number">Against GPTQ</th>
<th scope="col" class="number">Same top token</th>
<th scope="col">State</th>
<th scope="col">On the Hub</th>
</tr></thead>
<tbody>
${variants.map((variant) => {
	const change =
		variant.klNats === null ? null : formatChange(variant.klNats.mean, variant.baselines.gptq?.mean ?? null);
	const outdated = variant.ofOlderCommit ?? (newestSha !== null && newestSha !== variant.source.sha);
	return html`<tr>
<th scope="row">${withSource && html`<a href="/m/${variant.source.repo}">${variant.source.repo}</a> `}<a class="tag" href="/v/${variant.id}">${variant.recipe}</a>${
		variant.publishedAt !== null &&
		html`<small class="quiet">${timeElement(new Date(variant.publishedAt), now)} from commit <code>${shortSha(variant.source.sha)}</code></small>`
	}</th>
<td data-label="Size" class="number">${figure(variant.bytes === null ? null : formatBytes(variant.bytes))}</td>
<td data-label="KL, nats a token"><span class="estimate">${figure(variant.klNats === null ? null : formatEstimate(variant.klNats))}</span>${comparison(variant)}</td>
<td data-label="Against GPTQ" class="number">${figure(change)}</td>
<td data-label="Same top token" class="number">${figure(variant.topOneAgreement === null ? null : formatPercent(variant.topOneAgreement))}</td>
<td data-label="State"><span>${variantBadge(variant)}${outdated && html`<small class="quiet">of an older commit</small>`}</span></td>
<td data-label="On the Hub">${
		variant.state === "published"
			? html`<a href="${variant.url}" title="${variant.repo}" aria-label="Open ${variant.repo} on the Hub">Open</a>`
			: options.withJob
				? html`<a href="/jobs/${variant.jobId}">See its job</a>`
				: "–"
	}</td>
</tr>
`;
})}
</tbody></table></div>`;
}
