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
		const make = async () => {
			const { items, next } = await site.data.listDeliveries({ cursor, limit: PAGE_ROWS });
			const deliveries = items.map(summarizeDelivery);
			return {
				twin: { deliveries, nextCursor: next },
				page: () => deliveriesPage(site.context(), { items: deliveries, next }, cursor),
			};
		};
		await site.replyShared(request, response, { key: ["/deliveries", cursor], make });
	});
	return router;
}
