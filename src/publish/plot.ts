import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { Resvg } from "@resvg/resvg-js";
import type { Quantizer } from "../protocol/manifest.ts";
import { QUANTIZER_NAMES, QUANTIZER_ORDER } from "./figures.ts";

/** One measured file. */
export type PlotPoint = {
	readonly label: string;
	readonly bytes: number;
	readonly quantizer: Quantizer;
	readonly klNats: { readonly mean: number; readonly standardError: number };
};

const WIDTH = 900;
const HEIGHT = 560;
const FRAME = { left: 96, right: 28, top: 64, bottom: 76 } as const;
const FONTS = join(dirname(createRequire(import.meta.url).resolve("dejavu-fonts-ttf/package.json")), "ttf");
const INK = "#1f2328";
const FAINT = "#d8dee4";
/** Told apart by colour-blind readers and in grey print: colour, shape and fill all differ. */
const STYLES: Readonly<
	Record<Quantizer, { readonly color: string; readonly shape: "diamond" | "circle" | "triangle" | "square" }>
> = {
	"two-sided-tuned": { color: "#009e73", shape: "diamond" },
	"two-sided": { color: "#0072b2", shape: "circle" },
	"one-sided": { color: "#d55e00", shape: "triangle" },
	rtn: { color: "#6e7781", shape: "square" },
};
const LABEL_HEIGHT = 15;
const CHARACTER_WIDTH = 8;

type Box = { readonly left: number; readonly right: number; readonly top: number; readonly bottom: number };

/** File size against KL, both measured, as an SVG document. The same points give the same bytes. */
export function plotSvg(request: { readonly title: string; readonly points: readonly PlotPoint[] }): string {
	const points = request.points.filter((point) => point.klNats.mean > 0);
	const horizontal = sizeAxis(points.map((point) => point.bytes));
	const vertical = klAxis(points.flatMap(({ klNats }) => [klNats.mean, klNats.mean + klNats.standardError]));
	const right = WIDTH - FRAME.right;
	const bottom = HEIGHT - FRAME.bottom;
	const parts: string[] = [];

	for (const { at, text } of vertical.ticks) {
		parts.push(line(FRAME.left, at, right, at, FAINT));
		parts.push(label(FRAME.left - 10, at + 5, text, { anchor: "end" }));
	}
	for (const { at, text } of horizontal.ticks) {
		parts.push(line(at, FRAME.top, at, bottom, FAINT));
		parts.push(label(at, bottom + 22, text, { anchor: "middle" }));
	}
	parts.push(
		`<rect x="${FRAME.left}" y="${FRAME.top}" width="${right - FRAME.left}" height="${bottom - FRAME.top}" fill="none" stroke="${INK}"/>`,
		label((FRAME.left + right) / 2, HEIGHT - 26, `Size of the files (${horizontal.unit})`, { anchor: "middle" }),
		`<g transform="translate(26 ${(FRAME.top + bottom) / 2}) rotate(-90)">${label(0, 0, "KL(original ‖ quantized), nats a token (log scale)", { anchor: "middle" })}</g>`,
		label(FRAME.left, 28, request.title, { anchor: "start", bold: true }),
		label(WIDTH - FRAME.right, HEIGHT - 6, "Bars: ± one standard error, sequences as clusters. Lower is better.", {
			anchor: "end",
			small: true,
		}),
	);
	let legend = FRAME.left;
	for (const quantizer of QUANTIZER_ORDER) {
		if (!points.some((point) => point.quantizer === quantizer)) continue;
		parts.push(marker(legend + 6, 48, quantizer), label(legend + 18, 53, QUANTIZER_NAMES[quantizer], { small: true }));
		legend += 40 + QUANTIZER_NAMES[quantizer].length * CHARACTER_WIDTH;
	}

	const taken: Box[] = points.map((point) => {
		const x = horizontal.place(point.bytes);
		const y = vertical.place(point.klNats.mean);
		return { left: x - 8, right: x + 8, top: y - 8, bottom: y + 8 };
	});
	for (const point of points) {
		const x = horizontal.place(point.bytes);
		const low = vertical.place(Math.max(point.klNats.mean - point.klNats.standardError, vertical.smallest));
		const high = vertical.place(point.klNats.mean + point.klNats.standardError);
		const { color } = STYLES[point.quantizer];
		parts.push(line(x, low, x, high, color, 1.5), line(x - 4, low, x + 4, low, color, 1.5));
		parts.push(line(x - 4, high, x + 4, high, color, 1.5));
	}
	for (const point of points) {
		parts.push(marker(horizontal.place(point.bytes), vertical.place(point.klNats.mean), point.quantizer));
	}
	for (const [name, lowest] of lowestPoints(points)) {
		const x = horizontal.place(lowest.bytes);
		const y = vertical.place(lowest.klNats.mean);
		const width = name.length * CHARACTER_WIDTH;
		const box = freePlace(x, y, width, taken, { left: FRAME.left, right, top: FRAME.top, bottom });
		taken.push(box);
		parts.push(label(box.left, box.bottom - 3, name, {}));
	}
	return [
		`<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="DejaVu Sans">`,
		`<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
		...parts,
		"</svg>",
	].join("\n");
}

/** The plot as PNG, twice the size for sharp screens. Only the bundled font is used: every machine draws the same. */
export function plotPng(request: { readonly title: string; readonly points: readonly PlotPoint[] }): Uint8Array {
	const image = new Resvg(plotSvg(request), {
		fitTo: { mode: "zoom", value: 2 },
		background: "#ffffff",
		font: {
			loadSystemFonts: false,
			fontFiles: [join(FONTS, "DejaVuSans.ttf"), join(FONTS, "DejaVuSans-Bold.ttf")],
			defaultFontFamily: "DejaVu Sans",
		},
	});
	return Uint8Array.from(image.render().asPng());
}

/** The point of each label that the label is written beside. */
function lowestPoints(points: readonly PlotPoint[]): Map<string, PlotPoint> {
	const lowest = new Map<string, PlotPoint>();
	for (const point of points) {
		const known = lowest.get(point.label);
		if (known === undefined || point.klNats.mean < known.klNats.mean) lowest.set(point.label, point);
	}
	return lowest;
}

/** Beside the point, else above or below, else ever further down, but inside the frame and on nothing else. */
function freePlace(x: number, y: number, width: number, taken: readonly Box[], frame: Box): Box {
	const candidates: Box[] = [];
	for (let step = 0; step < 24; step++) {
		const shift = Math.ceil(step / 2) * LABEL_HEIGHT * (step % 2 === 0 ? 1 : -1);
		for (const left of [x + 12, x - 12 - width, x - width / 2]) {
			const top = y - LABEL_HEIGHT / 2 + shift + (left === x - width / 2 ? LABEL_HEIGHT * 1.3 : 0);
			candidates.push({ left, right: left + width, top, bottom: top + LABEL_HEIGHT });
		}
	}
	const inside = candidates.filter(
		(box) =>
			box.left > frame.left + 2 && box.right < frame.right - 2 && box.top > frame.top && box.bottom < frame.bottom,
	);
	const free = inside.find((box) =>
		taken.every(
			(other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom,
		),
	);
	return free ?? inside[0] ?? { left: x + 12, right: x + 12 + width, top: y - 8, bottom: y + 8 };
}

type Tick = { readonly at: number; readonly text: string };

function sizeAxis(values: readonly number[]): { place: (bytes: number) => number; ticks: Tick[]; unit: string } {
	const largest = Math.max(...values, 1);
	const [unit, scale] = largest >= 1e9 ? (["GB", 1e9] as const) : (["MB", 1e6] as const);
	const high = Math.max(...values, 1) / scale;
	const low = Math.min(...values, high * scale) / scale;
	const margin = Math.max((high - low) * 0.15, high * 0.1);
	const from = Math.max(0, low - margin);
	const to = high + margin;
	const room = WIDTH - FRAME.left - FRAME.right;
	const place = (bytes: number): number => round(FRAME.left + ((bytes / scale - from) / (to - from)) * room);
	const step = niceStep((to - from) / 6);
	const ticks: Tick[] = [];
	for (let index = Math.ceil(from / step); index * step <= to; index++) {
		const decimals = Math.max(0, -Math.floor(Math.log10(step)));
		ticks.push({ at: place(index * step * scale), text: (index * step).toFixed(decimals) });
	}
	return { place, ticks, unit };
}

function klAxis(values: readonly number[]): { place: (kl: number) => number; ticks: Tick[]; smallest: number } {
	const positive = values.filter((value) => value > 0);
	const low = Math.log10(Math.min(...positive, 1));
	const high = Math.log10(Math.max(...positive, 10 ** low));
	const margin = Math.max((high - low) * 0.12, 0.15);
	const from = low - margin;
	const to = high + margin;
	const room = HEIGHT - FRAME.top - FRAME.bottom;
	const place = (kl: number): number => round(FRAME.top + (1 - (Math.log10(kl) - from) / (to - from)) * room);
	const wide = to - from > 3;
	const multiples = wide ? [1] : to - from > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
	const ticks: Tick[] = [];
	for (let power = Math.floor(from); power <= Math.ceil(to); power++) {
		for (const multiple of multiples) {
			const value = multiple * 10 ** power;
			if (Math.log10(value) < from || Math.log10(value) > to) continue;
			const decimals = Math.max(0, -power + (multiple % 1 === 0 ? 0 : 1));
			ticks.push({ at: place(value), text: power < -5 ? value.toExponential(0) : value.toFixed(decimals) });
		}
	}
	return { place, ticks, smallest: 10 ** from };
}

function niceStep(raw: number): number {
	const power = 10 ** Math.floor(Math.log10(raw));
	const ratio = raw / power;
	return (ratio <= 1 ? 1 : ratio <= 2 ? 2 : ratio <= 5 ? 5 : 10) * power;
}

function marker(x: number, y: number, quantizer: Quantizer): string {
	const { color, shape } = STYLES[quantizer];
	switch (shape) {
		case "diamond":
			return `<path d="M${x} ${round(y - 8)}L${round(x + 8)} ${y}L${x} ${round(y + 8)}L${round(x - 8)} ${y}Z" fill="${color}"/>`;
		case "circle":
			return `<circle cx="${x}" cy="${y}" r="6" fill="${color}"/>`;
		case "triangle":
			return `<path d="M${x} ${round(y - 7)}L${round(x + 6.5)} ${round(y + 5)}H${round(x - 6.5)}Z" fill="${color}"/>`;
		case "square":
			return `<rect x="${round(x - 5)}" y="${round(y - 5)}" width="10" height="10" fill="#ffffff" stroke="${color}" stroke-width="2"/>`;
	}
}

function line(x1: number, y1: number, x2: number, y2: number, color: string, width = 1): string {
	return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${color}" stroke-width="${width}"/>`;
}

function label(
	x: number,
	y: number,
	text: string,
	style: { anchor?: "start" | "middle" | "end"; bold?: boolean; small?: boolean },
): string {
	const { anchor = "start", bold = false, small = false } = style;
	return `<text x="${round(x)}" y="${round(y)}" font-size="${bold ? 17 : small ? 12 : 13}"${bold ? ' font-weight="bold"' : ""} text-anchor="${anchor}" fill="${INK}">${escapeXml(text)}</text>`;
}

function escapeXml(text: string): string {
	return text
		.replaceAll(/[\p{Cc}\p{Cs}\p{Cn}]/gu, " ")
		.replaceAll("&", "&amp;")
		.replaceAll("<", "&lt;")
		.replaceAll(">", "&gt;")
		.replaceAll('"', "&quot;");
}

function round(value: number): number {
	return Math.round(value * 10) / 10;
}
