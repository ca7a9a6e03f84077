import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { Resvg } from "@resvg/resvg-js";
import { type Plot, plotSvg } from "./plot.ts";

const FONTS = join(dirname(createRequire(import.meta.url).resolve("dejavu-fonts-ttf/package.json")), "ttf");

/** The plot as PNG, twice the size for sharp screens. Only the bundled font is used: every machine draws the same. */
export function plotPng(request: Plot): Uint8Array {
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
