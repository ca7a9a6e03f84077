import { escapeHtml } from "../publish/escape.ts";

/** Markup that was built by `html` and needs no more escaping. */
export type Html = { readonly markup: string };

type HtmlValue = Html | string | number | null | undefined | false | readonly HtmlValue[];

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
