import type { Router } from "express";
import express from "express";
import { COMMANDS } from "../../commands/command-table.ts";
import { openApiDocument } from "../openapi.ts";
import type { Site } from "../site.ts";
import { type About, aboutPage } from "../views/about-page.ts";
import { helpPage } from "../views/help-page.ts";

/** `GET /help`, `/about`, and the description of what programs get. */
export function helpRoutes(site: Site, about: About): Router {
	const router = express.Router();
	router.get("/help", (request, response) => {
		site.reply(request, response, { commands: COMMANDS }, () => helpPage(site.context()));
	});
	router.get("/about", (request, response) => {
		site.reply(request, response, { about }, () => aboutPage(site.context(), about));
	});
	router.get("/openapi.json", (_request, response) => {
		const { botName, version } = site.context();
		// Read by programs of other sites too, such as editors of descriptions.
		response.set({ "Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*" });
		response.json(openApiDocument({ botName, version }));
	});
	return router;
}
