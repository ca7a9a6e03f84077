import type { LoadSnippet } from "../../publish/card/load-snippets.ts";
import { type Html, html } from "../html.ts";

/** Code to paste, under its engine's name. */
export function snippetBlock(snippet: LoadSnippet): Html {
	return html`<figure class="snippet"><figcaption>${snippet.runtime}</figcaption><pre tabindex="0" aria-label="${`Code for ${snippet.runtime}`}"><code>${snippet.code}</code></pre></figure>
`;
}
