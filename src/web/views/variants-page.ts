import type { Page } from "../../db/cursor.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import type { VariantQuery } from "../data.ts";
import { type Html, html } from "../html.ts";
import { CONTAINER_LABELS } from "./container-labels.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { variantTable } from "./variant-table.ts";

const SORT_LABELS = [
	["newest", "Newest first"],
	["kl", "Nearest to the original"],
	["size", "Smallest first"],
] as const;
const BITS = [2, 3, 4, 5, 6, 8] as const;

function option(value: string, label: string, selected: boolean): Html {
	return html`<option value="${value}"${selected && html` selected`}>${label}</option>`;
}

/** The list's own address with some of its parameters changed. */
function variantsAddress(query: VariantQuery, cursor: string | null): string {
	const parameters = new URLSearchParams();
	if (query.search !== null) parameters.set("q", query.search);
	if (query.container !== null) parameters.set("container", query.container);
	if (query.bits !== null) parameters.set("bits", String(query.bits));
	if (query.sort !== "newest") parameters.set("sort", query.sort);
	if (cursor !== null) parameters.set("cursor", cursor);
	const text = parameters.toString();
	return text === "" ? "/variants" : `/variants?${text}`;
}

export function variantsPage(context: PageContext, query: VariantQuery, page: Page<VariantSummary>): string {
	const filtered = query.search !== null || query.container !== null || query.bits !== null;
	const form = html`<form class="filters" method="get" action="/variants" role="search">
<label class="grow">Search <input type="search" name="q" value="${query.search ?? ""}" maxlength="200" placeholder="owner/model"></label>
<label>Loads in <select name="container">${option("", "Everything", query.container === null)}${CONTAINER_LABELS.map(
		([value, label]) => option(value, label, query.container === value),
	)}</select></label>
<label>Bits <select name="bits">${option("", "Any", query.bits === null)}${BITS.map((bits) => option(String(bits), String(bits), query.bits === bits))}</select></label>
<label>Order <select name="sort">${SORT_LABELS.map(([value, label]) => option(value, label, query.sort === value))}</select></label>
<button type="submit">Show</button>
</form>`;
	const empty = filtered
		? html`<div class="panel empty"><h2>No variant fits</h2><p class="quiet">Try fewer filters, or <a href="/variants">see all of them</a>.</p></div>`
		: html`<div class="panel empty"><h2>Nothing is published yet</h2>
<p class="quiet">Variants appear here as soon as the first job has ended. <a href="/jobs">See the jobs</a>, or ask for one in a discussion of a watched repo: <code>@${context.botName} quantize 4bit gguf</code>.</p></div>`;
	const main = html`<h1>All variants</h1>
<p class="lead">Each variant carries the KL divergence to its original, measured on the published files themselves: lower is nearer to the original. GPTQ and round to nearest stand beside it at equal bytes.</p>
${form}
${
	page.items.length === 0
		? empty
		: variantTable({
				variants: page.items,
				caption: `${filtered ? "Published variants that fit" : "Published variants"}. Bars, from the top: this variant, GPTQ, round to nearest.`,
				withSource: true,
				withJob: true,
				newestSha: null,
				now: context.now,
			})
}
<nav class="pager" aria-label="Pages">
${query.cursor !== null && html`<a href="${variantsAddress(query, null)}">Back to the first page</a>`}
${page.next !== null && html`<a rel="next" href="${variantsAddress(query, page.next)}">Next page</a>`}
</nav>`;
	return renderPage(context, { title: "All variants", section: "variants", main });
}
