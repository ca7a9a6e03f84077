import type { Router } from "express";
import express from "express";
import { repoName } from "../../protocol/job-spec.ts";
import { formatNumber } from "../../publish/figures.ts";
import { plotPng } from "../../publish/plot-png.ts";
import { badgeSvg } from "../badge.ts";
import type { Site } from "../site.ts";
import { plotPoints } from "../views/size-kl-plot.ts";

/** Pictures that are drawn once and kept: drawing one takes a good part of a second. */
const KEPT_PICTURES = 50;
const CACHE_SECONDS = 3600;

/** Unless it is for certain eyes only. */
function mayBeKept(response: express.Response): void {
	if (response.get("Cache-Control") === undefined) {
		response.set("Cache-Control", `public, max-age=${CACHE_SECONDS}`);
	}
}

/**
 * What other sites show of a model: a badge for its README, a plot for link previews. `kept`: plots by what they show,
 * of all audiences: a picture is looked for only by who may see its variants.
 */
export function pictureRoutes(site: Site, kept: Map<string, Buffer>): Router {
	const router = express.Router();

	router.get("/m/:owner/:name/badge.svg", async (request, response) => {
		const repo = repoName.safeParse(`${request.params.owner}/${request.params.name}`);
		const variants = repo.success ? site.summarize(await site.data.listVariantsOfSource(repo.data)) : [];
		const published = variants.filter((variant) => variant.state === "published");
		const least = Math.min(...published.flatMap((variant) => variant.klNats?.mean ?? []));
		const count = `${published.length} ${published.length === 1 ? "file" : "files"}`;
		const text =
			published.length === 0
				? "nothing published"
				: Number.isFinite(least)
					? `${count}, KL from ${formatNumber(least)}`
					: count;
		mayBeKept(response);
		response.type("image/svg+xml").send(badgeSvg("quantized by yaqa-bot", text));
	});

	router.get("/m/:owner/:name/plot.png", async (request, response) => {
		const repo = repoName.safeParse(`${request.params.owner}/${request.params.name}`);
		const variants = repo.success ? await site.data.listVariantsOfSource(repo.data) : [];
		const published = variants.filter((variant) => variant.state === "published");
		const points = plotPoints(site.summarize(published));
		if (!repo.success || points.length === 0) {
			site.notFound(request, response, "Nothing of that model is measured here.");
			return;
		}
		// A published variant never changes.
		const key = `${repo.data} ${published.map((variant) => variant.id).join()}`;
		const picture = kept.get(key) ?? Buffer.from(plotPng({ title: repo.data, points }));
		kept.delete(key);
		kept.set(key, picture);
		const [oldest] = kept.keys();
		if (kept.size > KEPT_PICTURES && oldest !== undefined) kept.delete(oldest);
		mayBeKept(response);
		response.type("png").send(picture);
	});
	return router;
}
