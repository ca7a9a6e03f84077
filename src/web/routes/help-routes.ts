import type { Router } from "express";
import express from "express";
import { COMMANDS } from "../../commands/command-table.ts";
import type { Site } from "../site.ts";
import { helpPage } from "../views/help-page.ts";

export function helpRoutes(site: Site): Router {
	const router = express.Router();
	router.get("/help", (request, response) => {
		site.reply(request, response, { commands: COMMANDS }, () => helpPage(site.context()));
	});
	return router;
}
