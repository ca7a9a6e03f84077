import { formatBytes } from "../../publish/figures.ts";
import type { VariantSummary } from "../../publish/variant-summary.ts";
import { type Html, html } from "../html.ts";

const WIDTH = 760;
const HEIGHT = 380;
const LEFT = 74;
const RIGHT = 24;
const TOP = 18;
const BOTTOM = 52;

type Point = { readonly recipe: string; readonly bytes: number; readonly kl: number; readonly error: number };

/** Whole and half decades that span the values. */
function decades(low: number, high: number): readonly number[] {
	const ticks: number[] = [];
	for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
		for (const step of [1, 3]) ticks.push(step * 10 ** power);
	}
	return ticks.filter((tick) => tick >= low / 1.01 && tick <= high * 1.01);
}

function niceStep(range: number): number {
	const raw = range / 5;
	const power = 10 ** Math.floor(Math.log10(raw));
	return (raw / power < 1.5 ? 1 : raw / power < 3.5 ? 2 : raw / power < 7.5 ? 5 : 10) * power;
}

/** No other variant is both smaller and nearer to the original. */
function paretoFrontier(points: readonly Point[]): readonly Point[] {
	let best = Number.POSITIVE_INFINITY;
	return [...points]
		.sort((one, other) => one.bytes - other.bytes || one.kl - other.kl)
		.filter((point) => {
			if (point.kl >= best) return false;
			best = point.kl;
			return true;
		});
}

/**
 * Size against KL (log scale) with error bars, GPTQ and round-to-nearest at the same bytes, and the frontier of the
 * best variants. `null` when fewer than one variant was measured. The table beside it holds the same figures.
 */
export function sizeKlPlot(variants: readonly VariantSummary[]): Html | null {
	const ours: Point[] = [];
	const gptq: Point[] = [];
	const rtn: Point[] = [];
	for (const variant of variants) {
		const { bytes, recipe } = variant;
		if (bytes === null || bytes <= 0) continue;
		for (const [list, estimate] of [
			[ours, variant.klNats],
			[gptq, variant.baselines.gptq],
			[rtn, variant.baselines.rtn],
		] as const) {
			if (estimate !== null && estimate.mean > 0 && Number.isFinite(estimate.mean)) {
				list.push({ recipe, bytes, kl: estimate.mean, error: estimate.standardError });
			}
		}
	}
	if (ours.length === 0) return null;
	const all = [...ours, ...gptq, ...rtn];
	const lowest = Math.min(...all.map((point) => Math.max(point.kl - point.error, point.kl / 2))) / 1.6;
	const highest = Math.max(...all.map((point) => point.kl + point.error)) * 1.6;
	const smallest = Math.min(...all.map((point) => point.bytes));
	const largest = Math.max(...all.map((point) => point.bytes));
	const margin = Math.max((largest - smallest) * 0.14, largest * 0.06);
	const x0 = Math.max(0, smallest - margin);
	const x1 = largest + margin;
	const x = (bytes: number): string => (LEFT + ((bytes - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT)).toFixed(1);
	const y = (kl: number): string =>
		(
			TOP +
			((Math.log(highest) - Math.log(Math.max(kl, lowest))) / (Math.log(highest) - Math.log(lowest))) *
				(HEIGHT - TOP - BOTTOM)
		).toFixed(1);
	const step = niceStep(x1 - x0);
	const sizes: number[] = [];
	for (let tick = Math.ceil(x0 / step) * step; tick <= x1; tick += step) sizes.push(tick);
	const frontier = paretoFrontier(ours);
	return html`<svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="plot-title">
<title id="plot-title">Size of ${ours.length} variants against their KL; the table below has the same figures.</title>
${decades(lowest, highest).map(
	(tick) =>
		html`<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick)}" y2="${y(tick)}"/><text x="${LEFT - 8}" y="${y(tick)}" dy="4" text-anchor="end">${Number(tick.toPrecision(1))}</text>`,
)}
${sizes.map(
	(tick) =>
		html`<line class="grid" y1="${TOP}" y2="${HEIGHT - BOTTOM}" x1="${x(tick)}" x2="${x(tick)}"/><text x="${x(tick)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${formatBytes(tick)}</text>`,
)}
<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 10}" text-anchor="middle">Size of the published files</text>
<text x="14" y="${(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" transform="rotate(-90 14 ${(TOP + HEIGHT - BOTTOM) / 2})">KL to the original, nats a token</text>
${frontier.length > 1 && html`<polyline class="frontier" points="${frontier.map((point) => `${x(point.bytes)},${y(point.kl)}`).join(" ")}"/>`}
${rtn.map((point) => html`<rect class="rtn" x="${x(point.bytes)}" y="${y(point.kl)}" width="9" height="9" transform="translate(-4.5 -4.5)"><title>Round to nearest, ${point.recipe}: ${point.kl.toPrecision(3)}</title></rect>`)}
${gptq.map((point) => html`<path class="gptq" d="M0-6 6 5H-6Z" transform="translate(${x(point.bytes)} ${y(point.kl)})"><title>GPTQ, ${point.recipe}: ${point.kl.toPrecision(3)}</title></path>`)}
${ours.map(
	(
		point,
	) => html`<line class="error" x1="${x(point.bytes)}" x2="${x(point.bytes)}" y1="${y(point.kl + point.error)}" y2="${y(Math.max(point.kl - point.error, lowest))}"/>
<circle class="ours" cx="${x(point.bytes)}" cy="${y(point.kl)}" r="5.5"><title>YAQA, ${point.recipe}: ${point.kl.toPrecision(3)}</title></circle>`,
)}
${labels(ours.map((point) => ({ text: point.recipe, x: Number(x(point.bytes)), y: Number(y(point.kl)) })))}
</svg>`;
}

type Label = { readonly text: string; readonly x: number; readonly y: number };

/** Names beside their points, pushed down where two would lie on each other; towards the inside near the right edge. */
function labels(wanted: readonly Label[]): readonly Html[] {
	const placed: Label[] = [];
	return [...wanted]
		.sort((one, other) => one.y - other.y)
		.map((label) => {
			let at = label.y + 4;
			for (const other of placed) {
				if (Math.abs(other.x - label.x) < 110 && Math.abs(other.y - at) < 14) at = other.y + 14;
			}
			placed.push({ ...label, y: at });
			const inwards = label.x > WIDTH - 150;
			return html`<text class="name" x="${label.x + (inwards ? -11 : 11)}" y="${at.toFixed(1)}"${inwards && html` text-anchor="end"`}>${label.text}</text>`;
		});
}
