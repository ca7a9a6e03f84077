import type { Router } from "express";
import express from "express";
import { COMMANDS } from "../../commands/command-table.ts";
import { openApiDocument } from "../openapi.ts";
import type { Site } from "../site.ts";
import { helpPage } from "../views/help-page.ts";

export function helpRoutes(site: Site): Router {
	const router = express.Router();
	router.get("/help", (request, response) => {
		site.reply(request, response, { commands: COMMANDS }, () => helpPage(site.context()));
	});
	router.get("/openapi.json", (_request, response) => {
		const { botName, version } = site.context();
		// Read by programs of other sites too, such as editors of descriptions.
		response.set({ "Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*" });
		response.json(openApiDocument({ botName, version }));
	});
	return router;
}
