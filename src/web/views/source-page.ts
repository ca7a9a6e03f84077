import type { PublishedBefore } from "../../db/variants.ts";
import type { Fit } from "../../publish/fitting.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import type { JobRecord } from "../../records/job.ts";
import { html } from "../html.ts";
import { type FitForm, fitSection } from "./fit-section.ts";
import { historySection } from "./history-section.ts";
import { jobTable } from "./job-table.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { runSection } from "./run-section.ts";
import { sizeKlPlot } from "./size-kl-plot.ts";
import { variantTable } from "./variant-table.ts";

/** One model with everything made of it. */
export function sourcePage(
	context: PageContext,
	source: {
		readonly repo: string;
		readonly newestSha: string | null;
		readonly variants: readonly VariantSummary[];
		readonly jobs: readonly JobRecord[];
		readonly fit: Fit;
		readonly typed: FitForm;
		readonly history: readonly PublishedBefore[];
		/** Where this site is reached. */
		readonly base: string;
	},
): string {
	const published = source.variants.filter((variant) => variant.state === "published");
	const plot = sizeKlPlot(published);
	const made = [...new Set(published.map((variant) => variant.recipe))].slice(0, 4);
	// In a list of YAML a comma begins the next entry.
	const recipes =
		made.length === 0 ? ["gguf:q8_0"] : made.map((recipe) => (recipe.includes(",") ? `"${recipe}"` : recipe));
	const page = `${source.base}/m/${source.repo}`;
	const main = html`<h1>${source.repo}</h1>
<p class="lead"><a href="${context.hubUrl}/${source.repo}">The original on the Hub</a>${source.newestSha !== null && html`, last seen at commit <code>${source.newestSha.slice(0, 8)}</code>`}.</p>
${published.length > 0 && fitSection(source.fit, source.typed, context.hubUrl)}
${published.length > 0 && runSection(source.fit, context.hubUrl)}
${
	plot !== null &&
	html`<h2>Size and nearness</h2><figure>${plot}<figcaption>The dotted line joins the published variants that no other one beats in both. Down and to the left is better.</figcaption></figure>`
}
<h2>Variants</h2>
${
	source.variants.length === 0
		? html`<div class="panel empty"><p class="quiet">No variant of this model was made yet.</p></div>`
		: variantTable({
				variants: source.variants,
				caption: `Variants of ${source.repo}`,
				withSource: false,
				withJob: true,
				newestSha: source.newestSha,
				now: context.now,
			})
}
${historySection(source.history, context.now)}
<h2>Another one?</h2>
<p>Write in a discussion of <a href="${context.hubUrl}/${source.repo}/discussions">${source.repo}</a>: <code>@${context.botName} quantize 8bit gguf</code>. <a href="/help">What the bot understands</a>.</p>
<details class="panel"><summary>Is it your model?</summary>
<p>A file <code>.yaqa-bot.yaml</code> in its repo says what is made of every push, where this bot looks after the repo; closing the bot's status discussion ends it.</p>
<pre tabindex="0" aria-label="The file .yaqa-bot.yaml"><code>${`enabled: true          # false: no variants of pushes\nrecipes: [${recipes.join(", ")}]`}</code></pre>
<p>A badge for its README:</p>
<pre tabindex="0" aria-label="Markdown of the badge"><code>${`[![Quantized by yaqa-bot](${page}/badge.svg)](${page})`}</code></pre></details>
<h2>Jobs</h2>
${source.jobs.length === 0 ? html`<p class="quiet">None.</p>` : jobTable({ jobs: source.jobs, caption: `Jobs of ${source.repo}, newest first`, now: context.now })}`;
	const preview = {
		description: `${published.length} quantized ${published.length === 1 ? "file" : "files"} of ${source.repo}, each with its measured distance to the original.`,
		address: page,
		picture: plot === null ? null : `${page}/plot.png`,
	};
	return renderPage(context, { title: source.repo, section: "models", main, preview });
}
