/** Text from outside as one line: no control or bidirectional-override characters, bounded. */
export function oneLine(text: string, limit = 200): string {
	const clean = text
		.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, " ")
		.replaceAll(/\s+/g, " ")
		.trim();
	return clean.length > limit ? `${clean.slice(0, limit)}…` : clean;
}

/**
 * Text from outside, to stand in Markdown as text: it renders no link, image, HTML or table cell, and mentions nobody.
 * The zero-width joiner after `@` is what keeps the Hub from notifying that user.
 */
export function markdownText(text: string, limit = 200): string {
	return oneLine(text, limit)
		.replaceAll("&", "&amp;")
		.replaceAll("<", "&lt;")
		.replaceAll(">", "&gt;")
		.replaceAll(/[\\`*_{}[\]()#+!|~$-]/g, (character) => `\\${character}`)
		.replaceAll("@", "@\u2060")
		.replaceAll(/\b(https?|ftp):/gi, "$1\u2060:")
		.replaceAll(/\bwww\./gi, "www\u2060.");
}

/** Text as inline code. It is shown as it is, so only what would end the code or the table cell is replaced. */
export function markdownCode(text: string, limit = 200): string {
	return `\`${oneLine(text, limit).replaceAll("`", "'").replaceAll("|", "¦").replaceAll("@", "@\u2060")}\``;
}
