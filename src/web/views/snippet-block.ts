import type { LoadSnippet } from "../../publish/card/load-snippets.ts";
import { type Html, html } from "../html.ts";

/** Code to paste, under its engine's name. */
export function snippetBlock(snippet: LoadSnippet): Html {
	return html`<figure class="snippet"><figcaption>${snippet.runtime}, ${snippet.ran ? "run by the bot's tests as it stands" : "not run by the bot's tests"}</figcaption><pre tabindex="0" aria-label="${`Code for ${snippet.runtime}`}"><code>${snippet.code}</code></pre></figure>
`;
}
