import type { Quantizer } from "../protocol/manifest.ts";
import { escapeHtml } from "./escape.ts";
import { formatEstimate, QUANTIZER_NAMES, QUANTIZER_ORDER } from "./figures.ts";
import { type Axis, klAxis, round, sizeAxis } from "./plot-axes.ts";

/** One measured file. */
export type PlotPoint = {
	readonly label: string;
	readonly bytes: number;
	readonly quantizer: Quantizer;
	/** Whether it is what people download; else what the same bytes hold when rounded otherwise. */
	readonly published: boolean;
	readonly klNats: { readonly mean: number; readonly standardError: number };
};

/** `title`: drawn above; empty where the page around it says what it is. */
export type Plot = { readonly title: string; readonly points: readonly PlotPoint[] };

const WIDTH = 900;
const HEIGHT = 560;
const FRAME = { left: 96, right: 872, top: 64, bottom: 484 } as const;
const INK = "#1f2328";
const FAINT = "#d8dee4";

/**
 * Told apart by colour-blind readers and in grey print: colour, shape and fill all differ. The colours are attributes,
 * which the site's style sheet overrides by the classes.
 */
const STYLES: Readonly<
	Record<
		Quantizer,
		{ readonly color: string; readonly shape: "diamond" | "circle" | "triangle" | "square"; readonly name: string }
	>
> = {
	"two-sided-tuned": { color: "#009e73", shape: "diamond", name: "ours" },
	"two-sided": { color: "#0072b2", shape: "circle", name: "ours" },
	"two-sided-cautious": { color: "#56b4e9", shape: "circle", name: "ours" },
	"one-sided": { color: "#d55e00", shape: "triangle", name: "gptq" },
	rtn: { color: "#6e7781", shape: "square", name: "rtn" },
};

const LABEL_HEIGHT = 15;
const CHARACTER_WIDTH = 8;

type Box = { readonly left: number; readonly right: number; readonly top: number; readonly bottom: number };
type Placed = PlotPoint & { readonly x: number; readonly y: number };

/** File size against KL, both measured, as an SVG document. The same points give the same bytes. */
export function plotSvg({ title, points: given }: Plot): string {
	const points = given.filter((point) => point.klNats.mean > 0 && Number.isFinite(point.klNats.mean));
	const size = sizeAxis(
		points.map((point) => point.bytes),
		[FRAME.left, FRAME.right],
	);
	const kl = klAxis(
		points.flatMap(({ klNats }) => [klNats.mean, klNats.mean + klNats.standardError]),
		[FRAME.bottom, FRAME.top],
	);
	const placed = points.map((point) => ({ ...point, x: size.place(point.bytes), y: kl.place(point.klNats.mean) }));
	const own = placed.filter((point) => point.published);
	const count = own.length === 1 ? "one variant" : `${own.length} variants`;
	return [
		`<svg class="plot" xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="DejaVu Sans" role="img" aria-labelledby="plot-title">`,
		`<title id="plot-title">Size of ${count} against their KL to the original.</title>`,
		`<rect class="background" width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
		...frame(size, kl),
		label(FRAME.left, 28, title, { bold: true }),
		...legend(points),
		frontierLine(own),
		...placed.map((point) => errorBar(point, kl)),
		...placed.map((point) => marker(point.x, point.y, point.quantizer, tooltip(point))),
		...labels(own, placed),
		"</svg>",
	].join("\n");
}

function frame(size: Axis & { readonly unit: string }, kl: Axis): string[] {
	const { left, right, top, bottom } = FRAME;
	return [
		...kl.ticks.flatMap(({ at, text }) => [
			line({ x1: left, y1: at, x2: right, y2: at, name: "grid", color: FAINT }),
			label(left - 10, at + 5, text, { anchor: "end" }),
		]),
		...size.ticks.flatMap(({ at, text }) => [
			line({ x1: at, y1: top, x2: at, y2: bottom, name: "grid", color: FAINT }),
			label(at, bottom + 22, text, { anchor: "middle" }),
		]),
		`<rect class="frame" x="${left}" y="${top}" width="${right - left}" height="${bottom - top}" fill="none" stroke="${INK}"/>`,
		label((left + right) / 2, HEIGHT - 26, `Size of the files (${size.unit})`, { anchor: "middle" }),
		`<g transform="translate(26 ${(top + bottom) / 2}) rotate(-90)">${label(0, 0, "KL(original ‖ quantized), nats a token (log scale)", { anchor: "middle" })}</g>`,
		label(right, HEIGHT - 6, "Bars: ± one standard error, sequences as clusters. Lower is better.", {
			anchor: "end",
			small: true,
		}),
	];
}

function legend(points: readonly PlotPoint[]): string[] {
	const parts: string[] = [];
	let left: number = FRAME.left;
	for (const quantizer of QUANTIZER_ORDER) {
		if (!points.some((point) => point.quantizer === quantizer)) continue;
		const name = QUANTIZER_NAMES[quantizer];
		parts.push(marker(left + 6, 48, quantizer), label(left + 18, 53, name, { small: true }));
		left += 40 + name.length * CHARACTER_WIDTH;
	}
	return parts;
}

/** Joins the published files that no other one beats in both size and KL. */
function frontierLine(own: readonly Placed[]): string {
	let best = Number.POSITIVE_INFINITY;
	const frontier = own
		.toSorted((one, other) => one.bytes - other.bytes || one.klNats.mean - other.klNats.mean)
		.filter((point) => {
			if (point.klNats.mean >= best) return false;
			best = point.klNats.mean;
			return true;
		});
	if (frontier.length < 2) return "";
	const places = frontier.map(({ x, y }) => `${x},${y}`).join(" ");
	return `<polyline class="frontier" points="${places}" fill="none" stroke="${STYLES["two-sided"].color}" stroke-dasharray="3 4"/>`;
}

function errorBar({ x, klNats, quantizer }: Placed, kl: Axis): string {
	const low = kl.place(klNats.mean - klNats.standardError);
	const high = kl.place(klNats.mean + klNats.standardError);
	const { color, name } = STYLES[quantizer];
	const part = (x1: number, y1: number, x2: number, y2: number) =>
		line({ x1: round(x1), y1, x2: round(x2), y2, name: `error ${name}`, color, width: 1.5 });
	return part(x, low, x, high) + part(x - 4, low, x + 4, low) + part(x - 4, high, x + 4, high);
}

function tooltip({ label: recipe, quantizer, klNats }: PlotPoint): string {
	return `${recipe}, ${QUANTIZER_NAMES[quantizer]}: ${formatEstimate(klNats)} nats a token`;
}

/** The names of the published files, beside their points. */
function labels(own: readonly Placed[], all: readonly Placed[]): string[] {
	const taken: Box[] = all.map(({ x, y }) => ({ left: x - 8, right: x + 8, top: y - 8, bottom: y + 8 }));
	return own.map(({ x, y, label: name }) => {
		const box = freePlace(x, y, name.length * CHARACTER_WIDTH, taken);
		taken.push(box);
		return label(box.left, box.bottom - 3, name, { name: "name" });
	});
}

/** Beside the point, else above or below, else ever further down, but inside the frame and on nothing else. */
function freePlace(x: number, y: number, width: number, taken: readonly Box[]): Box {
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
			box.left > FRAME.left + 2 && box.right < FRAME.right - 2 && box.top > FRAME.top && box.bottom < FRAME.bottom,
	);
	const free = inside.find((box) =>
		taken.every(
			(other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom,
		),
	);
	return free ?? inside[0] ?? { left: x + 12, right: x + 12 + width, top: y - 8, bottom: y + 8 };
}

/** `title`: what shows when one points at it. */
function marker(x: number, y: number, quantizer: Quantizer, title = ""): string {
	const { color, shape, name } = STYLES[quantizer];
	const inside = title === "" ? "" : `<title>${escapeXml(title)}</title>`;
	const shapes = {
		diamond: `<path class="${name}" d="M${x} ${round(y - 8)}L${round(x + 8)} ${y}L${x} ${round(y + 8)}L${round(x - 8)} ${y}Z" fill="${color}">${inside}</path>`,
		circle: `<circle class="${name}" cx="${x}" cy="${y}" r="6" fill="${color}">${inside}</circle>`,
		triangle: `<path class="${name}" d="M${x} ${round(y - 7)}L${round(x + 6.5)} ${round(y + 5)}H${round(x - 6.5)}Z" fill="${color}">${inside}</path>`,
		square: `<rect class="${name}" x="${round(x - 5)}" y="${round(y - 5)}" width="10" height="10" fill="#ffffff" stroke="${color}" stroke-width="2">${inside}</rect>`,
	};
	return shapes[shape];
}

function line(at: {
	readonly x1: number;
	readonly y1: number;
	readonly x2: number;
	readonly y2: number;
	readonly name: string;
	readonly color: string;
	readonly width?: number;
}): string {
	const { x1, y1, x2, y2, name, color, width = 1 } = at;
	return `<line class="${name}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${color}" stroke-width="${width}"/>`;
}

function label(
	x: number,
	y: number,
	text: string,
	style: { anchor?: "start" | "middle" | "end"; bold?: boolean; small?: boolean; name?: string },
): string {
	const { anchor = "start", bold = false, small = false, name = null } = style;
	const size = bold ? 17 : small ? 12 : 13;
	return `<text${name === null ? "" : ` class="${name}"`} x="${round(x)}" y="${round(y)}" font-size="${size}"${bold ? ' font-weight="bold"' : ""} text-anchor="${anchor}" fill="${INK}">${escapeXml(text)}</text>`;
}

/** XML forbids most control characters, however they are written. */
function escapeXml(text: string): string {
	return escapeHtml(text.replaceAll(/[\p{Cc}\p{Cs}\p{Cn}]/gu, " "));
}
