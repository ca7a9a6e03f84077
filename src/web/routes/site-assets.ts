import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Router } from "express";
import express from "express";
import type { Assets } from "../views/layout.ts";
import { browserPrograms } from "./browser-programs.ts";

const FILES = [
	{ name: "site.css", type: "text/css; charset=utf-8" },
	{ name: "live.js", type: "text/javascript; charset=utf-8" },
	{ name: "try.js", type: "text/javascript; charset=utf-8" },
	{ name: "try-worker.js", type: "text/javascript; charset=utf-8" },
	{ name: "icon.svg", type: "image/svg+xml" },
] as const;

function withoutIndentation(stored: Buffer): Buffer {
	const text = stored
		.toString("utf8")
		.replaceAll(/\s+/g, " ")
		.replaceAll(/ ?([{};,]) ?/g, "$1");
	return Buffer.from(text);
}

/** The site's own files, under names that carry their hash and may be cached for ever. */
export function siteAssets(fileOrigins: readonly string[]): { readonly router: Router; readonly assets: Assets } {
	const router = express.Router();
	const addresses = new Map<string, string>();
	const programs = browserPrograms();
	router.use(programs.router);
	// What a model is run by is compiled in the browser, and fetches the Hub's files.
	const workerPolicy = `default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' ${fileOrigins.join(" ")}`;
	for (const file of FILES) {
		const stored = readFileSync(new URL(`../assets/${file.name}`, import.meta.url));
		const bytes = file.name.endsWith(".css") ? withoutIndentation(stored) : stored;
		// Kept for ever together: another Hub is another address.
		const policy = file.name === "try-worker.js" ? workerPolicy : "";
		const hash = createHash("sha256").update(bytes).update(policy).digest("hex").slice(0, 12);
		const dot = file.name.lastIndexOf(".");
		const hashed = `/assets/${file.name.slice(0, dot)}.${hash}${file.name.slice(dot)}`;
		addresses.set(file.name, hashed);
		router.get(hashed, (_request, response) => {
			if (policy !== "") response.set("Content-Security-Policy", policy);
			response.set({ "Content-Type": file.type, "Cache-Control": "public, max-age=31536000, immutable" }).send(bytes);
		});
		router.get(`/assets/${file.name}`, (_request, response) => {
			response.set({ "Content-Type": file.type, "Cache-Control": "public, max-age=3600" }).send(bytes);
		});
	}
	return {
		router,
		assets: {
			css: addresses.get("site.css") ?? "",
			liveScript: addresses.get("live.js") ?? "",
			tryScript: addresses.get("try.js") ?? "",
			tryWorker: `${addresses.get("try-worker.js")}?${new URLSearchParams({ runtime: programs.runtime, tokenizers: programs.tokenizers, template: programs.template })}`,
		},
	};
}
