import type { LayerEvidence, Manifest } from "../../protocol/manifest.ts";
import { loadSnippets } from "../../publish/card/load-snippets.ts";
import {
	formatBytes,
	formatChange,
	formatCount,
	formatEstimate,
	formatNumber,
	formatPercent,
	inOrder,
	QUANTIZER_NAMES,
	shortSha,
} from "../../publish/figures.ts";
import { nearnessWords } from "../../publish/nearness.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { type Html, html } from "../html.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { snippetBlock } from "./snippet-block.ts";
import { variantBadge } from "./state-badge.ts";
import { timeElement } from "./time-element.ts";
import { triedFiles } from "./try-page.ts";

const MAXIMUM_LAYER_ROWS = 400;

function factsPart(variant: VariantRecord, summary: VariantSummary, context: PageContext): Html {
	return html`<dl class="facts">
<div><dt>Size</dt><dd>${summary.bytes === null ? "not known" : formatBytes(summary.bytes)}</dd></div>
<div><dt>KL to the original</dt><dd>${summary.klNats === null ? "not measured" : html`${formatEstimate(summary.klNats)} nats a token: ${nearnessWords(summary.klNats)}`}</dd></div>
<div><dt>Original</dt><dd><a href="${`${context.hubUrl}/${variant.sourceRepo}/tree/${variant.sourceSha}`}">${variant.sourceRepo}</a> at <code>${shortSha(variant.sourceSha)}</code></dd></div>
${
	variant.publishedAt !== null &&
	html`<div><dt>Published</dt><dd>${timeElement(variant.publishedAt, context.now)} in <a href="${summary.url}">${variant.targetRepo}</a>${variant.isCurrent === false && html`, replaced since by a newer commit's`}</dd></div>\n`
}<div><dt>Job</dt><dd><a href="/jobs/${variant.jobId}"><code>${variant.jobId.slice(0, 8)}</code></a></dd></div>
</dl>`;
}

/** Every quantizer's file of the same bytes, how its KL is spread over the tokens, and by text. */
function measuredPart(manifest: Manifest): Html {
	const rows = inOrder(manifest.evaluation.measured);
	const own = rows.find((row) => row.quantizer === manifest.quantizer) ?? rows[0];
	const domains = [...new Set(rows.flatMap((row) => Object.keys(row.byDomain)))].sort();
	return html`<h2>How near</h2>
<div class="scroll" tabindex="0"><table class="cards"><caption>KL to the original in nats a token, over ${own === undefined ? "no" : formatCount(own.report.tokens)} tokens; every row has the same ${own === undefined ? "" : formatBytes(own.bytes)}</caption>
<thead><tr><th scope="col">Rounding</th><th scope="col">Mean</th><th scope="col" class="number">Half of the tokens below</th><th scope="col" class="number">90 % below</th><th scope="col" class="number">99 % below</th><th scope="col" class="number">Same top token</th><th scope="col" class="number">Perplexity</th></tr></thead><tbody>
${rows.map(({ quantizer, report }) => {
	const { klNats, perplexity } = report;
	return html`<tr><th scope="row">${QUANTIZER_NAMES[quantizer]}${quantizer === manifest.quantizer && html`<small class="quiet">these files</small>`}</th><td data-label="Mean"><span class="estimate">${formatEstimate(klNats)}</span></td><td data-label="Half of the tokens below" class="number">${formatNumber(klNats.median)}</td><td data-label="90 % below" class="number">${formatNumber(klNats.p90)}</td><td data-label="99 % below" class="number">${formatNumber(klNats.p99)}</td><td data-label="Same top token" class="number">${formatPercent(report.topOneAgreement)}</td><td data-label="Perplexity" class="number">${formatChange(perplexity.quantized, perplexity.original) ?? "–"}</td></tr>
`;
})}</tbody></table></div>
${
	domains.length > 0 &&
	html`<div class="scroll" tabindex="0"><table class="cards"><caption>Mean KL by text</caption>
<thead><tr><th scope="col">Text</th>${rows.map(({ quantizer }) => html`<th scope="col">${QUANTIZER_NAMES[quantizer]}</th>`)}</tr></thead><tbody>
${domains.map(
	(domain) => html`<tr><th scope="row">${domain}</th>${rows.map(({ quantizer, byDomain }) => {
		const metrics = byDomain[domain];
		return html`<td data-label="${QUANTIZER_NAMES[quantizer]}"><span class="estimate">${metrics === undefined ? "–" : formatEstimate(metrics.klNats)}</span></td>`;
	})}</tr>
`,
)}</tbody></table></div>`
}`;
}

function enginePart({ engine, unmeasured, verification }: Manifest): Html {
	if (engine == null) {
		return html`<h2>In its engine</h2><p>${
			unmeasured == null
				? html`The files were checked against what the run says of them: KL ${formatNumber(verification.klNats)} over ${formatCount(verification.positions)} tokens, computed again by another program.`
				: html`Not measured: ${unmeasured.reason}`
		}</p>`;
	}
	return html`<h2>In its engine</h2>
<dl class="facts">
<div><dt>Engine</dt><dd>${engine.name} ${engine.version}</dd></div>
<div><dt>KL in it</dt><dd>${formatEstimate(engine.klNats)} nats a token, ${formatCount(engine.positions)} tokens</dd></div>
<div><dt>Same top token</dt><dd>${formatPercent(engine.topOneAgreement)}</dd></div>
<div><dt>Hard texts cut alike</dt><dd>${engine.tokens.equal} of ${engine.tokens.texts}</dd></div>
<div><dt>Written alike</dt><dd>${engine.greedy.equal} of ${engine.greedy.tokens} tokens</dd></div>
</dl>`;
}

/** One bar a layer, its proxy error as a share of round to nearest's, in the layers' order. */
function layerBars(layers: readonly LayerEvidence[]): Html {
	const width = 900;
	const step = width / Math.max(1, layers.length);
	const shareOf = ({ proxyError }: LayerEvidence): number =>
		proxyError.rtn > 0 ? Math.min(1, Math.max(0, proxyError.twoSided / proxyError.rtn)) : 0;
	return html`<svg class="layers" viewBox="0 0 ${width} 120" role="img" aria-labelledby="layers-title"><title id="layers-title">Error of each layer as a share of round to nearest's</title>${layers.map(
		(layer, index) =>
			html`<rect class="ours" x="${(index * step).toFixed(1)}" y="${(120 - shareOf(layer) * 120).toFixed(1)}" width="${Math.max(0.5, step * 0.8).toFixed(1)}" height="${(shareOf(layer) * 120).toFixed(1)}"><title>${layer.name}</title></rect>`,
	)}</svg>`;
}

function layersPart(layers: readonly LayerEvidence[]): Html | null {
	if (layers.length === 0) return null;
	const shown = layers.slice(0, MAXIMUM_LAYER_ROWS);
	const share = (value: number, of: number): string => (of > 0 ? `${((value / of) * 100).toFixed(0)} %` : "–");
	return html`<h2>By layer</h2>
<figure>${layerBars(layers)}<figcaption>Proxy error tr(H_O E H_I Eᵀ) of each layer as a share of round to nearest's, from the first to the last: lower is better.</figcaption></figure>
<details><summary>All figures of the layers</summary><div class="scroll" tabindex="0"><table class="cards"><caption>Shares of round to nearest's error, and as how many equal directions the spectra of the two factors count${layers.length > shown.length && html`; the first ${shown.length} of ${layers.length}`}</caption>
<thead><tr><th scope="col">Layer</th><th scope="col">Type</th><th scope="col" class="number">YAQA</th><th scope="col" class="number">GPTQ</th><th scope="col" class="number">Rank of H_O</th><th scope="col" class="number">Rank of H_I</th></tr></thead><tbody>
${shown.map(
	(
		layer,
	) => html`<tr><th scope="row"><code>${layer.name}</code></th><td data-label="Type">${layer.type}</td><td data-label="YAQA" class="number">${share(layer.proxyError.twoSided, layer.proxyError.rtn)}</td><td data-label="GPTQ" class="number">${share(layer.proxyError.oneSided, layer.proxyError.rtn)}</td><td data-label="Rank of H_O" class="number">${formatNumber(layer.effectiveRankOutput)} of ${layer.shape[0]}</td><td data-label="Rank of H_I" class="number">${formatNumber(layer.effectiveRankInput)} of ${layer.shape[1]}</td></tr>
`,
)}</tbody></table></div></details>`;
}

function provenancePart(variant: VariantRecord, manifest: Manifest): Html {
	const { calibration, sketch, device, seeds, versions, generator } = manifest;
	const listed = (values: Readonly<Record<string, string | number>>): string =>
		Object.entries(values)
			.map(([name, value]) => `${name} ${value}`)
			.join(", ");
	return html`<h2>Where it comes from</h2>
<dl class="facts">
<div class="wide"><dt>Source</dt><dd>${manifest.source.repo} at <code>${manifest.source.revision}</code></dd></div>
${manifest.source.base != null && html`<div class="wide"><dt>Merged onto</dt><dd>${manifest.source.base.repo} at <code>${manifest.source.base.revision}</code></dd></div>`}
<div><dt>Calibration</dt><dd>${calibration.kind}, ${formatCount(calibration.tokens)} tokens</dd></div>
<div><dt>Sketch</dt><dd>${sketch.kind.toUpperCase()}, ${sketch.iterations} iterations${sketch.reused && html`, reused`}</dd></div>
<div><dt>Made by</dt><dd>${generator.name} ${generator.version} on ${device.name}</dd></div>
<div class="wide"><dt>Versions</dt><dd>${listed(versions) === "" ? "not recorded" : listed(versions)}</dd></div>
<div class="wide"><dt>Seeds</dt><dd>${listed(seeds) === "" ? "none" : listed(seeds)}</dd></div>
<div class="wide"><dt>Texts</dt><dd>${manifest.evaluation.texts.length === 0 ? "not recorded" : manifest.evaluation.texts.map((text) => html`${text.domain} (${text.split}): <code>${text.sha256.slice(0, 12)}</code> `)}</dd></div>
</dl>
<div class="scroll" tabindex="0"><table class="cards"><caption>Files</caption>
<thead><tr><th scope="col">File</th><th scope="col" class="number">Bytes</th><th scope="col">SHA-256</th></tr></thead><tbody>
${manifest.files.map(
	(file) =>
		html`<tr><th scope="row"><code>${file.path}</code></th><td data-label="Bytes" class="number">${formatCount(file.size)}</td><td data-label="SHA-256"><code>${file.sha256}</code></td></tr>
`,
)}</tbody></table></div>
<h2>Compute it again</h2>
<p>What is published is held against its manifest and measured anew, from anywhere, by:</p>
<pre tabindex="0" aria-label="Commands that check these files"><code>${`yaqa-bot verify ${variant.targetRepo}\nyaqa-bot quantize ${variant.sourceRepo} --revision ${variant.sourceSha} --recipe "${variant.recipe}"`}</code></pre>`;
}

/** One variant with everything that is known of it. */
export function variantPage(context: PageContext, variant: VariantRecord, summary: VariantSummary): string {
	const { manifest } = variant;
	const main = html`<h1><span class="tag">${variant.recipe}</span> of <a href="/m/${variant.sourceRepo}">${variant.sourceRepo}</a></h1>
<p class="lead">${variantBadge(summary)}</p>
${factsPart(variant, summary, context)}
${
	manifest === null
		? html`<p class="quiet">Nothing is measured before <a href="/jobs/${variant.jobId}">its job</a> has ended.</p>`
		: html`${measuredPart(manifest)}
${enginePart(manifest)}
${
	summary.container !== null &&
	variant.state === "published" &&
	html`<h2>How to run it</h2>
${triedFiles(variant, context.hubUrl) !== null && html`<p><a href="/v/${variant.id}/try">Try it in this browser</a>: the files are fetched from the Hub, and nothing that you write is sent.</p>`}
${loadSnippets({ repo: variant.targetRepo, container: summary.container, manifest, hubUrl: context.hubUrl }).map(snippetBlock)}`
}
${layersPart(manifest.layers)}
${provenancePart(variant, manifest)}`
}`;
	return renderPage(context, { title: `${variant.recipe} of ${variant.sourceRepo}`, section: "models", main });
}
