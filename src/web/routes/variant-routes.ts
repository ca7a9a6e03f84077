import type { Router } from "express";
import express from "express";
import { z } from "zod";
import { Container } from "../../protocol/recipe-table.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { VARIANT_SORTS, type VariantQuery } from "../data.ts";
import { PAGE_ROWS, type Site } from "../site.ts";
import { textParameter } from "../text-parameter.ts";
import { triedFiles, tryPage } from "../views/try-page.ts";
import { variantPage } from "../views/variant-page.ts";
import { variantsPage } from "../views/variants-page.ts";

/** Addresses are written and shared by people: what does not parse counts as not given. */
const VariantParameters = z.object({
	q: textParameter(200),
	container: Container.nullable().catch(null),
	bits: z.coerce.number().int().min(1).max(16).nullable().catch(null),
	sort: z.enum(VARIANT_SORTS).catch("newest"),
	cursor: z.string().min(1).max(1000).nullable().catch(null),
});

/** `GET /variants`: every published variant; `GET /v/ID`: one of them; `GET /v/ID/try`: run here. */
export function variantRoutes(site: Site): Router {
	const router = express.Router();
	const findVariant = async (id: string): Promise<VariantRecord | null> =>
		z.uuid().safeParse(id).success ? await site.data.getVariant(id) : null;

	router.get("/variants", async (request, response) => {
		const parameters = VariantParameters.parse(request.query);
		const query: VariantQuery = {
			search: parameters.q === "" ? null : parameters.q,
			container: parameters.container,
			bits: parameters.bits,
			sort: parameters.sort,
			cursor: parameters.cursor,
			limit: PAGE_ROWS,
		};
		const make = async () => {
			const { items, next } = await site.data.listPublishedVariants(query);
			const variants = site.summarize(items);
			return {
				twin: { variants, nextCursor: next },
				page: () => variantsPage(site.context(), query, { items: variants, next }),
			};
		};
		await site.replyKept(request, response, { scope: { kind: "catalogue" }, key: ["/variants", query], make });
	});

	router.get("/v/:id/try", async (request, response) => {
		const variant = await findVariant(request.params.id);
		const context = site.context();
		const files = variant === null ? null : triedFiles(variant, context.hubUrl);
		if (variant === null || files === null) {
			site.notFound(request, response, "There is no variant of that number that a browser can run.");
			return;
		}
		response.type("html").send(tryPage(context, { variant, files, worker: context.assets.tryWorker }));
	});

	router.get("/v/:id", async (request, response) => {
		const { id } = request.params;
		const make = async () => {
			const variant = await findVariant(id);
			const [summary] = variant === null ? [] : site.summarize([variant]);
			if (variant === null || summary === undefined) return null;
			return {
				twin: { variant: summary, manifest: variant.manifest },
				page: () => variantPage(site.context(), variant, summary),
			};
		};
		const missing = "There is no variant of that number here.";
		await site.replyShared(request, response, { key: ["/v", id], make, missing });
	});
	return router;
}
