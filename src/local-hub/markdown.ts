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

/**
 * Markdown as HTML that is safe to show: raw HTML in it is escaped, and links carry no scripting protocol (both are
 * micromark's defaults). Relative links are led to `base`.
 */
export function renderMarkdown(text: string, base: { links: string; images: string } | null): string {
	const html = micromark(text.slice(0, LONGEST), "utf8", { extensions: [gfm()], htmlExtensions: [gfmHtml()] });
	if (base === null) return html;
	// the attribute values below are micromark's own output, quoted and escaped
	return html.replaceAll(/ (src|href)="([^"]*)"/g, (whole, name: string, target: string) => {
		if (target === "" || /^([a-z][a-z0-9+.-]*:|\/|#)/i.test(target)) return whole;
		const clean = target.replace(/^(\.\/)+/, "");
		return ` ${name}="${escapeHtml(name === "src" ? base.images : base.links)}${clean}"`;
	});
}
