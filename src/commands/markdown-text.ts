/** Text from outside as plain words in our Markdown: nothing in it formats, links, mentions or ends a comment. */
export function markdownText(text: string): string {
	return (
		text
			.replaceAll(/[\u0000-\u001F\u007F\u2028\u2029\u202A-\u202E\u2066-\u2069]+/g, " ")
			.replaceAll(/[\\`*_{}[\]()#+!|~<>&]/g, (character) => `\\${character}`)
			// A zero-width space keeps "@name" from calling somebody.
			.replaceAll("@", "@\u200B")
			.trim()
	);
}

/** Text from outside as code. Backticks are the one thing that could end it. */
export function markdownCode(text: string): string {
	const inside = text.replaceAll(/[\u0000-\u001F\u007F`\u2028\u2029\u202A-\u202E\u2066-\u2069]+/g, " ").trim();
	return `\`${inside === "" ? " " : inside}\``;
}

/** The same inside a table, where a bar would end the cell even in code. */
export function tableCode(text: string): string {
	return markdownCode(text.replaceAll("|", "/"));
}
