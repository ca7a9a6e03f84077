import type { Container } from "../../protocol/recipe-table.ts";
import { loadSnippets } from "../../publish/card/load-snippets.ts";
import type { Choosable, Fit } from "../../publish/fitting.ts";
import { type Html, html } from "../html.ts";
import { CONTAINER_LABELS } from "./container-labels.ts";
import { snippetBlock } from "./snippet-block.ts";

/** The files of each container that code is shown for: the recommended one, else the first that fits. */
function chosen(fit: Fit): readonly { readonly label: string; readonly file: Choosable }[] {
	const files = fit.choice.rows.map((row) => row.candidate);
	return CONTAINER_LABELS.flatMap(([container, label]: readonly [Container, string]) => {
		const file = files.find((one) => one.container === container);
		return file === undefined ? [] : [{ label, file }];
	});
}

/** "How to run it": code for every engine that opens one of the files. */
export function runSection(fit: Fit, hubUrl: string): Html | null {
	const groups = chosen(fit);
	if (groups.length === 0) return null;
	return html`<section id="run"><h2>How to run it</h2>
<p>Each repo's card says the same for every one of its files. Prompts follow the chat template that comes with the tokenizer: in a GGUF file it is inside, in the other containers it lies beside the weights.</p>
${groups.map(
	(
		{ label, file },
		index,
	) => html`<details class="panel"${index === 0 && html` open`}><summary>${label}: <span class="tag">${file.recipe}</span></summary>
${loadSnippets({ repo: file.summary.repo, container: file.container, manifest: file.manifest, hubUrl }).map(snippetBlock)}</details>
`,
)}</section>`;
}
