import type { Router } from "express";
import express from "express";
import { CursorParameter } from "../cursor-parameter.ts";
import { summarizeDelivery } from "../delivery-summary.ts";
import { PAGE_ROWS, type Site } from "../site.ts";
import { deliveriesPage } from "../views/deliveries-page.ts";

/** `GET /deliveries`: what came in, and what became of it. */
export function deliveryRoutes(site: Site): Router {
	const router = express.Router();
	router.get("/deliveries", async (request, response) => {
		const { cursor } = CursorParameter.parse(request.query);
		const page = await site.data.listDeliveries({ cursor, limit: PAGE_ROWS });
		const rows = page.items.map(summarizeDelivery);
		site.reply(request, response, { deliveries: rows, nextCursor: page.next }, () =>
			deliveriesPage(site.context(), { items: rows, next: page.next }, cursor),
		);
	});
	return router;
}
