import { COMMANDS, QUANTIZE_OPTIONS } from "../../commands/command-table.ts";
import { RECIPE_NAMES, RECIPES } from "../../protocol/recipe-table.ts";
import { html } from "../html.ts";
import { type PageContext, renderPage } from "./layout.ts";

export function helpPage(context: PageContext): string {
	const main = html`<h1>What the bot understands</h1>
<p class="lead">Write in any discussion of a watched repo, on a line of its own that begins with <code>@${context.botName}</code>. Quotes, code, links and headings are not read. One reply answers your comment and is kept up to date. In issues of a GitHub repo that the bot looks after, the same lines work once the issue or the line names the model.</p>
${COMMANDS.map(
	(
		command,
	) => html`<section class="panel"><h2 id="${command.name}"><code>@${context.botName} ${command.usage}</code></h2>
<p>${command.summary}</p>
<p class="quiet">Who may use it: ${command.whoCanUse}</p>
<div class="scroll" tabindex="0"><table><caption>Examples</caption><thead><tr><th scope="col">You write</th><th scope="col">You get</th></tr></thead><tbody>
${command.examples.map((example) => html`<tr><td><code>@${context.botName} ${example.text}</code></td><td>${example.meaning}</td></tr>`)}
</tbody></table></div></section>
`,
)}
<h2 id="options">Options of quantize and plan</h2>
<div class="scroll" tabindex="0"><table><caption>Written as option=value, in any order</caption>
<thead><tr><th scope="col">Option</th><th scope="col">What it says</th></tr></thead><tbody>
${QUANTIZE_OPTIONS.map(
	(option) =>
		html`<tr><th scope="row"><code>${option.key}${option.value === "" ? "" : `=${option.value}`}</code></th><td>${option.meaning}</td></tr>`,
)}
</tbody></table></div>
<h2 id="recipes">Recipes</h2>
<div class="scroll" tabindex="0"><table><caption>A recipe is a name, with options after commas: w4a16,group=32</caption>
<thead><tr><th scope="col">Recipe</th><th scope="col">Container</th><th scope="col" class="number">Bits</th><th scope="col" class="number">Stored bits a weight</th><th scope="col">Group</th></tr></thead><tbody>
${RECIPE_NAMES.map(
	(recipe) =>
		html`<tr><th scope="row"><span class="tag">${recipe.name}</span></th><td>${recipe.container}</td><td class="number">${recipe.bits}</td><td class="number">${recipe.bitsPerWeight.toFixed(2)}</td><td>${recipe.defaultGroup === null ? "fixed" : `${recipe.groups.join(", ")}; usually ${recipe.defaultGroup}`}</td></tr>`,
)}
${RECIPES.mixed.examples.map(
	(example) =>
		html`<tr><th scope="row"><span class="tag">${example}</span></th><td>gguf</td><td class="number">mixed</td><td class="number">2 to 8.5</td><td>a type for each layer, by what it can bear</td></tr>`,
)}
</tbody></table></div>
<h2 id="programs">For programs</h2>
<p>Every page answers with JSON when it is asked for it (<code>Accept: application/json</code>), as <a href="/openapi.json">this description</a> says. <a href="/feed.atom">The feed</a> tells of what is new.</p>`;
	return renderPage(context, { title: "Help", section: "help", main });
}
