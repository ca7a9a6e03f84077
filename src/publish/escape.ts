/** Text from outside as one line: no control or bidirectional-override characters, bounded. */
function oneLine(text: string, limit = 200): string {
	const clean = text
		.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, " ")
		.replaceAll(/\s+/g, " ")
		.trim();
	return clean.length > limit ? `${clean.slice(0, limit)}…` : clean;
}

/**
 * Text from outside, to stand in a line of Markdown as text: it renders no link, image, HTML, formula or table cell,
 * begins no list or heading, and mentions nobody. The word joiner after `@` and in addresses is what keeps the Hub from
 * notifying that user and from making a link.
 */
export function markdownText(text: string, limit = 200): string {
	return oneLine(text, limit)
		.replaceAll("&", "&amp;")
		.replaceAll("<", "&lt;")
		.replaceAll(">", "&gt;")
		.replaceAll(/[\\`*_[\]|~$]/g, (character) => `\\${character}`)
		.replace(/^([-+#=]|\d+[.)](?= |$))/, (start) => `${start.slice(0, -1)}\\${start.slice(-1)}`)
		.replaceAll("@", "@\u2060")
		.replaceAll(/(https?|ftp|mailto):/gi, "$1\u2060:")
		.replaceAll(/www\./gi, "www\u2060.");
}

/** Text as inline code. It is shown as it is, so only what would end the code or the table cell is replaced. */
export function markdownCode(text: string, limit = 200): string {
	return `\`${oneLine(text, limit).replaceAll("`", "'").replaceAll("|", "¦").replaceAll("<", "‹").replaceAll(">", "›").replaceAll("@", "@\u2060")}\``;
}

const ENTITIES: Readonly<Record<string, string>> = {
	"&": "&amp;",
	"<": "&lt;",
	">": "&gt;",
	'"': "&quot;",
	"'": "&#39;",
	"`": "&#96;",
};

/** Overrides of the writing direction: in a hostile repo name they would make the rest of the row read otherwise. */
const BIDI_CONTROLS = /[\u202A-\u202E\u2066-\u2069\u200E\u200F\u061C]/g;

/** Text from outside in HTML or XML: between tags, or in an attribute with quotes. */
export function escapeHtml(text: string): string {
	return text.replaceAll(BIDI_CONTROLS, "\uFFFD").replaceAll(/[&<>"'`]/g, (character) => ENTITIES[character] ?? "");
}
