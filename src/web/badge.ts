import { html } from "./html.ts";

const CHARACTER_WIDTH = 6.6;
const PADDING = 12;

/** Two fields side by side, as READMEs show them. */
export function badgeSvg(label: string, text: string): string {
	const left = Math.round(label.length * CHARACTER_WIDTH + PADDING);
	const right = Math.round(text.length * CHARACTER_WIDTH + PADDING);
	const width = left + right;
	const picture = html`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="20" role="img" aria-label="${`${label}: ${text}`}"><title>${`${label}: ${text}`}</title><rect width="${width}" height="20" rx="3" fill="#22262a"/><path d="M${left} 0h${right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-${right - 3}z" fill="#1f6660"/><g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"><text x="${left / 2}" y="14">${label}</text><text x="${left + right / 2}" y="14">${text}</text></g></svg>`;
	return picture.markup;
}
