import { formatBytes } from "../../publish/figures.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { html } from "../html.ts";
import { type PageContext, renderPage } from "./layout.ts";

/** Files of one variant that a browser runs. */
export type TriedFiles = {
	/** What the addresses of its files begin with. */
	readonly base: string;
	/** The graph's path among `files`. */
	readonly graph: string;
	readonly files: readonly string[];
	readonly bytes: number;
};

/** What a browser can be asked to fetch and hold: its programs have 4 GiB in all, and a reader has patience. */
const MAXIMUM_BYTES = 1_000_000_000;

/** `null`: the variant is none that is tried in a browser. */
export function triedFiles(variant: VariantRecord, hubUrl: string): TriedFiles | null {
	const { manifest, targetRepo, targetSha, state } = variant;
	if (state !== "published" || manifest === null) return null;
	const files = manifest.files.filter((file) => file.path.startsWith("onnx/"));
	const graph = files.find((file) => file.path.endsWith(".onnx"));
	const bytes = files.reduce((total, file) => total + file.size, 0);
	if (graph === undefined || bytes > MAXIMUM_BYTES) return null;
	return {
		base: `${hubUrl}/${targetRepo}/resolve/${targetSha ?? "main"}`,
		graph: graph.path,
		files: files.map((file) => file.path),
		bytes,
	};
}

/** A published ONNX file, run in the reader's own browser. */
export function tryPage(
	context: PageContext,
	request: { readonly variant: VariantRecord; readonly files: TriedFiles; readonly worker: string },
): string {
	const { variant, files, worker } = request;
	const main = html`<h1>Try <span class="tag">${variant.recipe}</span> of <a href="/m/${variant.sourceRepo}">${variant.sourceRepo}</a></h1>
<p class="lead">It runs in this browser, by onnxruntime: ${formatBytes(files.bytes)} are fetched from the Hub when you ask for the first time, and what you write stays here.</p>
<noscript><p>This takes JavaScript. <a href="/v/${variant.id}">The variant's page</a> has the commands that run it elsewhere.</p></noscript>
<form data-try="${JSON.stringify(files)}" data-worker="${worker}" hidden>
<label for="try-text">Text to go on with, or a question where the model chats</label>
<textarea id="try-text" name="text" rows="3" maxlength="4000" required>The sea was</textarea>
<p><button type="submit">Write on</button></p>
</form>
<p id="try-state" class="quiet" role="status"></p>
<p class="tried"><span id="try-asked" class="quiet"></span><output id="try-output" for="try-text"></output></p>
<p class="quiet">The likeliest token each time, at most 64. <a href="/v/${variant.id}">How near it is to the original, and how to run it elsewhere</a>.</p>`;
	return renderPage(context, {
		title: `Try ${variant.recipe} of ${variant.sourceRepo}`,
		section: "models",
		main,
		script: context.assets.tryScript,
	});
}
