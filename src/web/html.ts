/** Markup that was built by `html` and needs no more escaping. */
export type Html = { readonly markup: string };

type HtmlValue = Html | string | number | null | undefined | false | readonly HtmlValue[];

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

export function escapeHtml(text: string): string {
	return text.replaceAll(BIDI_CONTROLS, "\uFFFD").replaceAll(/[&<>"'`]/g, (character) => ENTITIES[character] ?? "");
}

function markupOf(value: HtmlValue): string {
	if (value === null || value === undefined || value === false) return "";
	if (typeof value === "string") return escapeHtml(value);
	if (typeof value === "number") return String(value);
	if ("markup" in value) return value.markup;
	return value.map(markupOf).join("");
}

/** A template whose holes are escaped. Attributes must be quoted. */
export function html(strings: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
	let markup = strings[0] ?? "";
	for (const [index, value] of values.entries()) markup += markupOf(value) + (strings[index + 1] ?? "");
	return { markup };
}
