import { type Html, html } from "../html.ts";

/** A moment for people, with the exact one for machines and in the tooltip. */
export function timeElement(at: Date, now: Date): Html {
	const seconds = Math.max(0, (now.getTime() - at.getTime()) / 1000);
	let text = at.toISOString().slice(0, 10);
	if (seconds < 45) text = "just now";
	else if (seconds < 3600) text = `${Math.max(1, Math.round(seconds / 60))} min ago`;
	else if (seconds < 86_400) text = `${Math.round(seconds / 3600)} h ago`;
	else if (seconds < 14 * 86_400) text = `${Math.round(seconds / 86_400)} d ago`;
	return html`<time datetime="${at.toISOString()}" title="${at.toISOString()}">${text}</time>`;
}
