import type { Router } from "express";
import express from "express";
import { z } from "zod";
import { VARIANT_SORTS, type VariantQuery } from "../data.ts";
import { PAGE_ROWS, type Site } from "../site.ts";
import { cataloguePage } from "../views/catalogue-page.ts";

/** Addresses are written and shared by people: what does not parse counts as not given. */
const CatalogueParameters = z.object({
	q: z
		.string()
		.trim()
		.min(1)
		.transform((text) => text.slice(0, 200))
		.nullable()
		.catch(null),
	container: z.enum(["gguf", "onnx", "compressed-tensors", "gptq"]).nullable().catch(null),
	bits: z.coerce.number().int().min(1).max(16).nullable().catch(null),
	sort: z.enum(VARIANT_SORTS).catch("newest"),
	cursor: z.string().min(1).max(1000).nullable().catch(null),
});

/** `GET /`: every published variant. */
export function catalogueRoutes(site: Site): Router {
	const router = express.Router();
	router.get("/", async (request, response) => {
		const parameters = CatalogueParameters.parse(request.query);
		const query: VariantQuery = {
			search: parameters.q,
			container: parameters.container,
			bits: parameters.bits,
			sort: parameters.sort,
			cursor: parameters.cursor,
			limit: PAGE_ROWS,
		};
		const page = await site.data.listPublishedVariants(query);
		const rows = site.summarize(page.items);
		site.reply(request, response, { variants: rows, nextCursor: page.next }, () =>
			cataloguePage(site.context(), query, { items: rows, next: page.next }),
		);
	});
	return router;
}
