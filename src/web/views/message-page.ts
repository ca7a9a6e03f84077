import { html } from "../html.ts";
import { type PageContext, renderPage } from "./layout.ts";

/** Not found, bad request, our own fault: what happened and where to go on. */
export function messagePage(context: PageContext, message: { readonly title: string; readonly text: string }): string {
	const main = html`<h1>${message.title}</h1>
<p>${message.text}</p>
<p><a href="/">All variants</a> · <a href="/jobs">All jobs</a></p>`;
	return renderPage(context, { title: message.title, section: null, main });
}
