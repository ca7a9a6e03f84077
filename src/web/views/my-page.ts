import type { Page } from "../../db/cursor.ts";
import type { KnownSource } from "../../db/sources-of-namespaces.ts";
import { html } from "../html.ts";
import type { Viewer } from "../sign-in/viewer.ts";
import { type PageContext, renderPage } from "./layout.ts";
import { jobStateWord, stateBadge } from "./state-badge.ts";
import { timeElement } from "./time-element.ts";

/** The models of who is signed in, private ones too. */
export function myPage(context: PageContext, viewer: Viewer, page: Page<KnownSource>, cursor: string | null): string {
	const owners = [viewer.name, ...viewer.organizations];
	const main = html`<h1>My models</h1>
<p class="lead">Models of ${owners.map((name, index) => html`${index > 0 && ", "}<a href="${context.hubUrl}/${name}">${name}</a>`)} that this bot has worked on. Private ones are shown to those whom the Hub lets read them, and to whoever runs this bot.</p>
${
	page.items.length === 0
		? html`<div class="panel empty"><h2>None yet</h2><p class="quiet">Write in a discussion of a model that the bot watches: <code>@${context.botName} quantize 4bit gguf</code>. <a href="/help">What the bot understands</a>.</p></div>`
		: html`<div class="scroll" tabindex="0"><table class="cards"><caption>The one with the newest job first</caption>
<thead><tr><th scope="col">Model</th><th scope="col">Seen by</th><th scope="col" class="number">Variants</th><th scope="col">Last job</th><th scope="col">Asked for</th></tr></thead>
<tbody>
${page.items.map((source) => {
	const { text, tone } = jobStateWord(source.lastJob.state);
	return html`<tr><th scope="row"><a href="/m/${source.repo}">${source.repo}</a></th>
<td data-label="Seen by">${source.private ? "its members" : "everybody"}</td>
<td data-label="Variants" class="number">${source.variants}</td>
<td data-label="Last job"><a href="/jobs/${source.lastJob.id}">${stateBadge(tone, text)}</a></td>
<td data-label="Asked for">${timeElement(new Date(source.lastJob.createdAt), context.now)}</td></tr>
`;
})}
</tbody></table></div>`
}
<nav class="pager" aria-label="Pages">
${cursor !== null && html`<a href="/my">Back to the first page</a>`}
${page.next !== null && html`<a rel="next" href="/my?${new URLSearchParams({ cursor: page.next }).toString()}">More models</a>`}
</nav>`;
	return renderPage(context, { title: "My models", section: "my", main });
}
