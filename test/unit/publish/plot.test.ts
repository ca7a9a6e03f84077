import assert from "node:assert/strict";
import { test } from "node:test";
import type { Quantizer } from "../../../src/protocol/manifest.ts";
import { type PlotPoint, plotSvg } from "../../../src/publish/plot.ts";
import { klAxis, sizeAxis } from "../../../src/publish/plot-axes.ts";
import { plotPng } from "../../../src/publish/plot-png.ts";

function points(labels: readonly string[]): PlotPoint[] {
	const factors: readonly [Quantizer, number][] = [
		["two-sided-tuned", 0.9],
		["two-sided", 1],
		["one-sided", 1.3],
		["rtn", 2],
	];
	return labels.flatMap((label, index) =>
		factors.map(([quantizer, factor]) => ({
			label,
			bytes: 5e6 + index * 1e5,
			quantizer,
			published: quantizer === "two-sided-tuned",
			klNats: { mean: 0.02 * factor, standardError: 0.001 },
		})),
	);
}

/** Width and height from the IHDR chunk. */
function size(png: Uint8Array): [number, number] {
	assert.deepEqual([...png.subarray(0, 8)], [137, 80, 78, 71, 13, 10, 26, 10]);
	const view = new DataView(png.buffer, png.byteOffset);
	return [view.getUint32(16), view.getUint32(20)];
}

test("the plot is a PNG of fixed size with something on it, the same for the same points", () => {
	const request = { title: "owner/model", points: points(["gguf:q4_0", "w4a16"]) };
	const png = plotPng(request);
	assert.deepEqual(size(png), [1800, 1120]);
	const empty = plotPng({ title: "", points: [] });
	assert.ok(png.byteLength > empty.byteLength * 1.2, `${png.byteLength} against ${empty.byteLength}`);
	assert.deepEqual(plotPng(request), png);
});

test("text is drawn: the bundled font was found", () => {
	const one = plotPng({ title: "a", points: [] });
	const other = plotPng({ title: "Wholly another title, and a longer one", points: [] });
	assert.ok(other.byteLength > one.byteLength + 500);
});

test("axes are labelled with units and every variant with its name, once", () => {
	const svg = plotSvg({ title: "owner/model", points: points(["gguf:q4_0", "w4a16", "onnx:q4"]) });
	assert.match(svg, /Size of the files \(MB\)/);
	assert.match(svg, /nats a token/);
	assert.match(svg, /one standard error/);
	for (const label of ["gguf:q4_0", "w4a16", "onnx:q4"]) assert.equal(svg.split(`>${label}<`).length, 2, label);
});

test("labels of variants of nearly one size do not lie on each other", () => {
	const svg = plotSvg({ title: "x", points: points(["one", "two", "three", "four", "five", "six"]) });
	const places = ["one", "two", "three", "four", "five", "six"].map((label) => {
		const [, x, y] = new RegExp(`<text class="name" x="([\\d.]+)" y="([\\d.]+)"[^>]*>${label}<`).exec(svg) ?? [];
		return { left: Number(x), right: Number(x) + label.length * 7, y: Number(y) };
	});
	for (const [index, one] of places.entries()) {
		for (const other of places.slice(index + 1)) {
			assert.ok(one.right < other.left || one.left > other.right || Math.abs(one.y - other.y) >= 14);
		}
	}
});

test("odd figures and hostile titles give a plot all the same", () => {
	for (const klNats of [
		{ mean: 0, standardError: 0 },
		{ mean: 1e-12, standardError: 0 },
		{ mean: 50, standardError: 60 },
	]) {
		assert.deepEqual(
			size(
				plotPng({
					title: "</text><script>&\u0000",
					points: [{ label: "<x>", bytes: 1, quantizer: "rtn", published: true, klNats }],
				}),
			),
			[1800, 1120],
		);
	}
	assert.doesNotMatch(plotSvg({ title: "</text><script>", points: [] }), /<script>/);
});

test("an axis has a handful of ticks in order, whatever the range", () => {
	for (const values of [[0.081, 0.099], [0.02, 0.03], [1e-6, 10], [0.5], [3e-9, 4e-9], []]) {
		const { ticks } = klAxis(values, [500, 0]);
		assert.ok(ticks.length >= 2 && ticks.length <= 12, `${values.join()}: ${ticks.map((tick) => tick.text).join()}`);
		assert.deepEqual(
			ticks.map(({ at }) => at),
			ticks.map(({ at }) => at).toSorted((one, other) => other - one),
		);
	}
	const axis = sizeAxis([4.1e9, 8.5e9], [0, 800]);
	assert.equal(axis.unit, "GB");
	assert.deepEqual(
		axis.ticks.map(({ text }) => text),
		["4", "5", "6", "7", "8", "9"],
	);
	assert.ok(axis.place(4.1e9) < axis.place(8.5e9));
});
