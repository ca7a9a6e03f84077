import type { Router } from "express";
import express from "express";
import type { WebData } from "../data.ts";
import type { createHealth } from "../health-checks.ts";
import type { Metrics } from "../metrics.ts";

/** `/healthz`, `/readyz` and `/metrics`, for the programs that look after this one. */
export function healthRoutes(options: {
	readonly version: string;
	readonly health: ReturnType<typeof createHealth>;
	readonly metrics: Metrics;
	readonly data: Pick<WebData, "counts">;
	/** Open event streams. */
	readonly clients: () => number;
}): Router {
	const { health, metrics, data } = options;
	const router = express.Router();
	router.get("/healthz", (_request, response) => {
		response.set("Cache-Control", "no-store").json({ alive: true, version: options.version });
	});
	router.get("/readyz", async (_request, response) => {
		const report = await health();
		response
			.set("Cache-Control", "no-store")
			.status(report.ready ? 200 : 503)
			.json(report);
	});
	router.get("/metrics", async (_request, response) => {
		response
			.set("Content-Type", metrics.registry.contentType)
			.send(await metrics.scrape(await data.counts(), options.clients()));
	});
	return router;
}
