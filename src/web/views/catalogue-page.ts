import type { CatalogueModel } from "../../db/catalogue.ts";
import { HARDWARE_NAMES } from "../../fit/hardware.ts";
import { formatBytes, formatCount, formatNumber } from "../../publish/figures.ts";
import type { ModelList } from "../data.ts";
import { type Html, html } from "../html.ts";
import { CONTAINER_LABELS } from "./container-labels.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { timeElement } from "./time-element.ts";

/** What somebody chose, as it stands in the address. */
export type CatalogueState = {
	readonly q: string;
	readonly container: string;
	readonly bits: string;
	readonly family: string;
	readonly license: string;
	readonly parameters: string;
	readonly size: string;
	/** A memory or a device that one of the files has to run in. */
	readonly fits: string;
	readonly since: string;
	readonly sort: string;
};

export const PARAMETER_CLASSES = [
	["1b", "below 1 billion", 0, 1e9],
	["4b", "1 to 4 billion", 1e9, 4e9],
	["10b", "4 to 10 billion", 4e9, 1e10],
	["40b", "10 to 40 billion", 1e10, 4e10],
	["more", "40 billion and more", 4e10, 1e15],
] as const;
export const PERIODS = [
	["week", "in the last week", 7],
	["month", "in the last 30 days", 30],
	["year", "in the last year", 365],
] as const;
const SIZES = ["2GB", "4GB", "6GB", "8GB", "12GB", "16GB", "24GB", "48GB"] as const;
const SORTS = [
	["newest", "Newest first"],
	["kl", "Nearest to the original"],
	["size", "Smallest first"],
] as const;

function select(
	name: keyof CatalogueState,
	label: string,
	any: string,
	chosen: string,
	options: readonly (readonly [string, string])[],
): Html {
	// What is in the address stays choosable, also where no model has it any more.
	const shown =
		chosen === "" || options.some(([value]) => value === chosen) ? options : [...options, [chosen, chosen] as const];
	return html`<label>${label} <select name="${name}">${any !== "" && html`<option value="">${any}</option>`}${shown.map(
		([value, text]) => html`<option value="${value}"${value === chosen && html` selected`}>${text}</option>`,
	)}</select></label>
`;
}

function addressOf(state: CatalogueState, cursor: string | null): string {
	const parameters = new URLSearchParams();
	for (const [name, value] of Object.entries(state)) {
		if (value !== "" && !(name === "sort" && value === "newest")) parameters.set(name, value);
	}
	if (cursor !== null) parameters.set("cursor", cursor);
	const text = parameters.toString();
	return text === "" ? "/" : `/?${text}`;
}

function form(state: CatalogueState, list: ModelList): Html {
	const { facets } = list;
	const counted = (values: readonly { readonly value: string; readonly count: number }[], suffix = "") =>
		values.map(({ value, count }) => [value, `${value}${suffix} (${count})`] as const);
	const labels = new Map<string, string>(CONTAINER_LABELS);
	return html`<form class="filters" method="get" action="/" role="search">
<label class="grow">Search <input type="search" name="q" value="${state.q}" maxlength="200" placeholder="A model, 4bit, Q4_K_M, or an address of the Hub"></label>
${select(
	"container",
	"Runs in",
	"Everything",
	state.container,
	facets.container.map(({ value, count }) => [value, `${labels.get(value) ?? value} (${count})`]),
)}
${select("bits", "Bits", "Any", state.bits, counted(facets.bits))}
${select("family", "Family", "Any", state.family, counted(facets.family))}
${select(
	"parameters",
	"Parameters",
	"Any",
	state.parameters,
	PARAMETER_CLASSES.map(([value, label]) => [value, label]),
)}
${select("license", "Licence", "Any", state.license, counted(facets.license))}
${select(
	"size",
	"Smallest file",
	"Any size",
	state.size,
	SIZES.map((size) => [size, `at most ${size.replace("GB", " GB")}`]),
)}
<label>Fits, with 8k <input name="fits" value="${state.fits}" list="hardware" maxlength="100" placeholder="8 GB, RTX 4090"></label>
<datalist id="hardware">${HARDWARE_NAMES.map((name) => html`<option value="${name}"></option>`)}</datalist>
${select(
	"since",
	"Published",
	"At any time",
	state.since,
	PERIODS.map(([value, label]) => [value, label]),
)}
${select("sort", "Order", "", state.sort, SORTS)}
<button type="submit">Show</button>
</form>`;
}

function goesOn({ fits, container }: CatalogueState): string {
	if (fits === "") return "";
	const asked = new URLSearchParams({ fits, ...(container === "" ? {} : { container }) });
	return `?${asked.toString()}#fits`;
}

function parametersText(parameters: number | null): string {
	if (parameters === null) return "–";
	return parameters >= 1e9 ? `${formatNumber(parameters / 1e9)} B` : `${formatNumber(parameters / 1e6)} M`;
}

function sizesText({ leastBytes, mostBytes }: CatalogueModel): string {
	if (leastBytes === null || mostBytes === null) return "–";
	return leastBytes === mostBytes ? formatBytes(leastBytes) : `${formatBytes(leastBytes)} – ${formatBytes(mostBytes)}`;
}

/** `fits`: how the model's page goes on with what somebody asked here. */
function table(models: readonly CatalogueModel[], caption: string, fits: string, now: Date): Html {
	return html`<div class="scroll" tabindex="0"><table class="cards"><caption>${caption}</caption>
<thead><tr><th scope="col">Model</th><th scope="col">Runs in</th><th scope="col" class="number">Parameters</th><th scope="col" class="number">Variants</th><th scope="col" class="number">Sizes</th><th scope="col" class="number">Least KL</th><th scope="col">Newest</th></tr></thead>
<tbody>
${models.map(
	(
		model,
	) => html`<tr><th scope="row"><a href="/m/${model.repo}${fits}">${model.repo}</a><small class="quiet">${[model.family, model.license].filter((text) => text !== null).join(", ")}</small></th>
<td data-label="Runs in"><span>${model.containers.map((container) => html`<span class="tag">${container}</span> `)}</span></td>
<td data-label="Parameters" class="number">${parametersText(model.parameters)}</td>
<td data-label="Variants" class="number">${model.variants}</td>
<td data-label="Sizes" class="number">${sizesText(model)}</td>
<td data-label="Least KL" class="number">${model.leastKlNats === null ? "–" : formatNumber(model.leastKlNats)}</td>
<td data-label="Newest"><span>${timeElement(new Date(model.publishedAt), now)}</span></td></tr>
`,
)}</tbody></table></div>`;
}

function empty(context: PageContext, filtered: boolean): Html {
	return filtered
		? html`<div class="panel empty"><h2>No model fits</h2><p class="quiet">Try fewer words or filters, or <a href="/">see all of them</a>. A model that is not here can be asked for in a discussion of its repo, where this bot looks after it: <code>@${context.botName} quantize 4bit gguf</code>.</p></div>`
		: html`<div class="panel empty"><h2>Nothing is published yet</h2>
<p class="quiet">Models appear here as soon as the first job has ended. <a href="/jobs">See the jobs</a>, or ask for one in a discussion of a watched repo: <code>@${context.botName} quantize 4bit gguf</code>.</p></div>`;
}

export function cataloguePage(
	context: PageContext,
	state: CatalogueState,
	cursor: string | null,
	list: ModelList & { readonly misread: string | null },
): string {
	const { page, models, similar } = list;
	const filtered = addressOf({ ...state, sort: "newest" }, null) !== "/";
	const count = `${formatCount(models)} ${models === 1 ? "model" : "models"}`;
	const caption = similar
		? `No model has all of these words; ${count} with words like them`
		: filtered
			? `${count} that fit`
			: count;
	const main = html`<h1>Quantized models, measured</h1>
<p class="lead">Every file carries the KL divergence to its original, measured on the published files themselves: lower is nearer to the original. A model's page says which file fits your memory.</p>
${form(state, list)}
${list.misread !== null && html`<p class="panel" role="status">${list.misread}</p>`}
${page.items.length === 0 ? empty(context, filtered) : table(page.items, caption, goesOn(state), context.now)}
<nav class="pager" aria-label="Pages">
<a href="/variants">All variants in one list</a>
${cursor !== null && html`<a href="${addressOf(state, null)}">Back to the first page</a>`}
${page.next !== null && html`<a rel="next" href="${addressOf(state, page.next)}">Next page</a>`}
</nav>`;
	return renderPage(context, { title: "Quantized models", section: "models", main });
}
