import type { Router } from "express";
import express from "express";
import { GitHubWebhookBody } from "../../github/webhook-body.ts";
import { HubWebhookBody } from "../../hub/webhook-body.ts";
import type { DeliveryRecord } from "../../records/delivery.ts";
import { CursorParameter } from "../cursor-parameter.ts";
import { PAGE_ROWS, type Site } from "../site.ts";
import { type DeliverySummary, deliveriesPage } from "../views/deliveries-page.ts";

/** What it is about, as far as its body tells. */
function subjectOf(delivery: DeliveryRecord): Pick<DeliverySummary, "event" | "repo"> {
	if (delivery.source === "github") {
		const { data } = GitHubWebhookBody.safeParse(delivery.body);
		if (data === undefined) return { event: "github", repo: null };
		const { action, repository } = data.payload;
		return { event: `github ${data.event} ${action ?? ""}`.trim(), repo: repository?.full_name ?? null };
	}
	const { data } = HubWebhookBody.safeParse(delivery.body);
	if (data === undefined) return { event: delivery.source, repo: null };
	return { event: `${data.event.scope} ${data.event.action}`, repo: data.repo.name };
}

function summarizeDelivery(delivery: DeliveryRecord): DeliverySummary {
	return {
		id: delivery.id,
		receivedAt: delivery.receivedAt.toISOString(),
		outcome: delivery.outcome,
		detail: delivery.detail,
		...subjectOf(delivery),
	};
}

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
