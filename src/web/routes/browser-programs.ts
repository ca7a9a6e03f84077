import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, extname, join } from "node:path";
import type { Router } from "express";
import express from "express";
import { z } from "zod";

const { resolve } = createRequire(import.meta.url);

const TYPES: ReadonlyMap<string, string> = new Map([
	[".js", "text/javascript; charset=utf-8"],
	[".mjs", "text/javascript; charset=utf-8"],
	[".wasm", "application/wasm"],
]);

/** What runs a model in a visitor's browser, served from our own origin. */
export type BrowserPrograms = {
	readonly router: Router;
	/** Addresses of modules to import. */
	readonly runtime: string;
	readonly tokenizers: string;
	readonly template: string;
};

/** Addresses carry the packages' versions, and may be kept for ever. */
export function browserPrograms(): BrowserPrograms {
	const router = express.Router();
	/** Serves files of the folder that the package's entry lies in; the address of the first. */
	function serve(name: string, first: string, ...others: readonly string[]): string {
		const folder = dirname(resolve(name));
		const { version } = z
			.object({ version: z.string() })
			.parse(JSON.parse(readFileSync(join(folder, "..", "package.json"), "utf8")));
		const base = `/assets/${name.replace("@huggingface/", "")}-${version}`;
		for (const file of [first, ...others]) {
			router.get(`${base}/${file}`, (_request, response) => {
				response
					.set({
						"Content-Type": TYPES.get(extname(file)) ?? "application/octet-stream",
						"Cache-Control": "public, max-age=31536000, immutable",
					})
					.sendFile(join(folder, file), { cacheControl: false });
			});
		}
		return `${base}/${first}`;
	}
	return {
		router,
		runtime: serve("onnxruntime-web", "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
		tokenizers: serve("@huggingface/tokenizers", "tokenizers.min.mjs"),
		template: serve("@huggingface/jinja", "index.js"),
	};
}
