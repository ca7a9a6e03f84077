import { HARDWARE_NAMES } from "../../fit/hardware.ts";
import { CACHE_TYPES } from "../../fit/memory.ts";
import { loadSnippets } from "../../publish/card/load-snippets.ts";
import { formatBytes, formatEstimate } from "../../publish/figures.ts";
import { type Fit, fitReason, formatContext, mainFile } from "../../publish/fitting.ts";
import { nearnessWords } from "../../publish/nearness.ts";
import { type Html, html } from "../html.ts";
import { CONTAINER_LABELS } from "./container-labels.ts";
import { snippetBlock } from "./snippet-block.ts";

/** What somebody typed, as it is shown again. */
export type FitForm = { readonly machine: string; readonly context: string; readonly message: string | null };

const CACHE_LABELS: Readonly<Record<(typeof CACHE_TYPES)[number], string>> = {
	f16: "16 bits, the default",
	q8_0: "8 bits (q8_0)",
	q4_0: "4 bits (q4_0)",
};

function form(fit: Fit, typed: FitForm): Html {
	return html`<form class="filters" method="get" action="#fits">
<label class="grow">Memory or hardware <input name="fits" value="${typed.machine}" list="hardware" maxlength="100" placeholder="8 GB, RTX 4090, M3 Pro 36 GB"></label>
<datalist id="hardware">${HARDWARE_NAMES.map((name) => html`<option value="${name}"></option>`)}</datalist>
<label>Context <input name="context" value="${typed.context}" maxlength="20" placeholder="8k"></label>
<label>Runs in <select name="container"><option value="">Everything</option>${CONTAINER_LABELS.map(
		([value, label]) => html`<option value="${value}"${value === fit.container && html` selected`}>${label}</option>`,
	)}</select></label>
<label>Cache <select name="cache">${CACHE_TYPES.map(
		(type) => html`<option value="${type}"${type === fit.cache && html` selected`}>${CACHE_LABELS[type]}</option>`,
	)}</select></label>
<button type="submit">Which fits?</button>
</form>`;
}

function recommendation(fit: Fit, hubUrl: string): Html | null {
	if (fit.question === null) return null;
	const { recommended } = fit.choice;
	const asked = `${fit.question.machine}, context ${formatContext(fit.context)}`;
	if (recommended === null) {
		return html`<div class="panel answer"><h3>Nothing fits ${asked}</h3><p>${fitReason(fit)}</p></div>`;
	}
	const { candidate, memory } = recommended;
	const file = mainFile(candidate.manifest);
	const [snippet] = loadSnippets({
		repo: candidate.summary.repo,
		container: candidate.container,
		manifest: candidate.manifest,
		hubUrl,
	});
	return html`<div class="panel answer"><h3>For ${asked}: <span class="tag">${candidate.recipe}</span></h3>
<p>${fitReason(fit)} It takes ${formatBytes(memory.total)}: weights ${formatBytes(memory.weights)}, cache ${formatBytes(memory.cache + memory.states)}, computing ${formatBytes(memory.compute)}.${
		candidate.klNats !== null && html` KL to the original: ${formatEstimate(candidate.klNats)} nats a token.`
	}</p>
<p>${file === null ? "The folder" : html`<code>${file}</code>`} in <a href="${candidate.summary.url}">${candidate.summary.repo}</a></p>
${snippet !== undefined && snippetBlock(snippet)}</div>`;
}

function table(fit: Fit): Html {
	const asked = fit.question !== null;
	return html`<div class="scroll" tabindex="0"><table class="cards"><caption>Memory with a context of ${formatContext(fit.context)} tokens${asked && html`, what fits first and the nearest to the original before the others`}</caption>
<thead><tr><th scope="col">Variant</th><th scope="col" class="number">Memory</th><th scope="col" class="number">Weights</th><th scope="col" class="number">Cache</th><th scope="col">KL, nats a token</th><th scope="col">In words</th>${asked && html`<th scope="col">Fits</th><th scope="col" class="number">Longest context</th>`}</tr></thead>
<tbody>
${fit.choice.rows.map(
	({
		candidate,
		memory,
		fits,
		longestContext,
	}) => html`<tr><th scope="row"><span class="tag">${candidate.recipe}</span></th>
<td data-label="Memory" class="number">${formatBytes(memory.total)}</td>
<td data-label="Weights" class="number">${formatBytes(memory.weights)}</td>
<td data-label="Cache" class="number">${candidate.shape === null ? "not known" : formatBytes(memory.cache + memory.states)}</td>
<td data-label="KL, nats a token"><span class="estimate">${candidate.klNats === null ? "not measured" : formatEstimate(candidate.klNats)}</span></td>
<td data-label="In words">${nearnessWords(candidate.klNats)}</td>
${asked && html`<td data-label="Fits" class="estimate">${fits === true ? "yes" : "no"}</td><td data-label="Longest context" class="number">${longestContext === null ? "–" : formatContext(longestContext)}</td>`}</tr>
`,
)}</tbody></table></div>`;
}

/** "What fits": a memory and a context in, one file out, the others below it. */
export function fitSection(fit: Fit, typed: FitForm, hubUrl: string): Html {
	const estimated = fit.choice.rows.some((row) => row.candidate.container !== "gguf");
	return html`<section id="fits"><h2>What fits</h2>
${form(fit, typed)}
${typed.message !== null && html`<p class="panel" role="status">${typed.message}</p>`}
${recommendation(fit, hubUrl)}
${
	fit.choice.rows.length === 0
		? html`<p class="quiet">No published file ${fit.container === null ? "yet" : "for this engine"}.</p>`
		: table(fit)
}
<p class="quiet">Memory is what llama.cpp plans for itself, with flash attention and batches of 512 tokens: within 10 % of what it reports.${
		estimated && html` For the other engines it is an estimate that was not measured.`
	} A GB is 10⁹ bytes; makers sell GiB under that name, which leaves room for driver and screen.${
		fit.contextLength !== null && html` The model was trained for ${formatContext(fit.contextLength)} tokens.`
	}</p></section>`;
}
