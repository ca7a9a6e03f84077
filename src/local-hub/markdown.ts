import { micromark } from "micromark";
import { gfm, gfmHtml } from "micromark-extension-gfm";

const LONGEST = 512 * 1024;

const HTML_ESCAPES: Readonly<Record<string, string>> = {
	"&": "&amp;",
	"<": "&lt;",
	">": "&gt;",
	'"': "&quot;",
	"'": "&#39;",
};

export function escapeHtml(text: string): string {
	return text.replaceAll(/[&<>"']/g, (character) => HTML_ESCAPES[character] ?? "");
}

const COMMENT = /<!--[\s\S]*?-->/g;
const FOLDING_TAG = /(<\/?(?:details|summary)>)/;

/** Raw HTML as the Hub shows it, as far as model cards need it: no comments, foldable sections, the rest escaped. */
function shownHtml(html: string): string {
	return html
		.replaceAll(COMMENT, "")
		.split(FOLDING_TAG)
		.map((part) => (FOLDING_TAG.test(part) ? part : escapeHtml(part)))
		.join("");
}

type HtmlExtension = ReturnType<typeof gfmHtml>;

const foldableHtml: HtmlExtension = {
	exit: {
		// The data tokens are the lines of one construct; a comment may span several.
		htmlFlow(token) {
			this.raw(shownHtml(this.sliceSerialize(token)));
		},
		htmlFlowData() {},
		htmlText(token) {
			this.raw(shownHtml(this.sliceSerialize(token)));
		},
		htmlTextData() {},
	},
};

/**
 * Markdown as HTML that is safe to show: raw HTML in it is escaped but for comments, which are left out, and the bare
 * tags of a foldable section; links carry no scripting protocol (micromark's default). Relative links are led to `base`.
 */
export function renderMarkdown(text: string, base: { links: string; images: string } | null): string {
	const html = micromark(text.slice(0, LONGEST), "utf8", {
		extensions: [gfm()],
		htmlExtensions: [gfmHtml(), foldableHtml],
	});
	if (base === null) return html;
	// the attribute values below are micromark's own output, quoted and escaped
	return html.replaceAll(/ (src|href)="([^"]*)"/g, (whole, name: string, target: string) => {
		if (target === "" || /^([a-z][a-z0-9+.-]*:|\/|#)/i.test(target)) return whole;
		const clean = target.replace(/^(\.\/)+/, "");
		return ` ${name}="${escapeHtml(name === "src" ? base.images : base.links)}${clean}"`;
	});
}
