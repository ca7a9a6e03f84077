import type { Router } from "express";
import express from "express";
import { z } from "zod";
import type { Log } from "../../log.ts";
import { CursorParameter } from "../cursor-parameter.ts";
import { summarizeDelivery } from "../delivery-summary.ts";
import type { OperatorData } from "../operator-data.ts";
import { readForm } from "../sign-in/read-form.ts";
import { PAGE_ROWS, type Site } from "../site.ts";
import { operatorPage } from "../views/operator-page.ts";

const LINE_SHOWN = 50;
const Id = z.uuid();

/** `GET /operator` and the replay of deliveries, for whoever runs the bot; for others there is no such page. */
export function operatorRoutes(
	site: Site,
	options: {
		readonly origin: string | null;
		readonly isOperator: () => boolean;
		readonly operatorData: OperatorData | null;
		readonly log: Log;
	},
): Router {
	const { origin, isOperator, operatorData, log } = options;
	const router = express.Router();

	router.get("/operator", async (request, response, next) => {
		if (operatorData === null || !isOperator()) {
			next();
			return;
		}
		const { cursor } = CursorParameter.parse(request.query);
		const [counts, line, spentMicroUsd, isolation, page] = await Promise.all([
			site.data.counts(),
			operatorData.line(LINE_SHOWN),
			operatorData.spentMicroUsd(),
			operatorData.isolation(),
			site.data.listDeliveries({ cursor, limit: PAGE_ROWS }),
		]);
		const { budget, retention } = operatorData.settings;
		const view = {
			counts,
			line,
			budget: { ...budget, spentThisMonthUsd: spentMicroUsd / 1e6 },
			retention: { settings: retention, kept: operatorData.kept() },
			isolation: {
				runner: operatorData.settings.runner.kind,
				required: operatorData.settings.runner.isolation,
				now: isolation,
			},
			deliveries: page.items.map(summarizeDelivery),
			nextCursor: page.next,
		};
		const twin = {
			queue: {
				jobs: counts.jobsByState,
				variants: counts.variantsByState,
				deliveries: counts.deliveriesByOutcome,
				oldestDueSeconds: counts.oldestDueSeconds,
				line,
			},
			budget: view.budget,
			kept: view.retention.kept,
			isolation: view.isolation,
			deliveries: view.deliveries,
			nextCursor: view.nextCursor,
		};
		site.reply(request, response, twin, () => operatorPage(site.context(), view, cursor));
	});

	router.post("/operator/deliveries/:id/replay", async (request, response, next) => {
		if (operatorData === null || !isOperator()) {
			next();
			return;
		}
		const sent = await readForm(site, request, response, origin);
		if (sent === null) return;
		const id = Id.safeParse(request.params.id);
		if (!id.success || !(await operatorData.replay(id.data))) {
			site.refuse(request, response, {
				status: 409,
				title: "Not worked on anew",
				text: "There is no such delivery, or it is being worked on already.",
			});
			return;
		}
		log.info("A delivery was replayed", { delivery: id.data, person: sent.viewer.name });
		if (request.accepts(["html", "json"]) === "json") response.json({ delivery: id.data });
		else response.redirect(303, "/operator#deliveries");
	});
	return router;
}
