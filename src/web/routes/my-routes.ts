import type { Router } from "express";
import express from "express";
import { CursorParameter } from "../cursor-parameter.ts";
import { PAGE_ROWS, type Site } from "../site.ts";
import { myPage } from "../views/my-page.ts";

/** `GET /my`: the models of who is signed in, and of their organisations. */
export function myRoutes(site: Site): Router {
	const router = express.Router();
	router.get("/my", async (request, response) => {
		const viewer = site.viewer();
		if (viewer === null) {
			if (site.context().signIn && request.accepts(["html", "json"]) === "html") {
				response.redirect(303, "/auth/sign-in?returnTo=/my");
				return;
			}
			site.notFound(request, response, "Nobody is signed in.");
			return;
		}
		const { cursor } = CursorParameter.parse(request.query);
		const namespaces = [viewer.name, ...viewer.organizations];
		const page = await site.data.listSourcesOf({ namespaces, cursor, limit: PAGE_ROWS });
		const twin = {
			person: viewer.name,
			organizations: viewer.organizations,
			models: page.items,
			nextCursor: page.next,
		};
		site.reply(request, response, twin, () => myPage(site.context(), viewer, page, cursor));
	});
	return router;
}
