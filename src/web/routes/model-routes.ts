import type { Router } from "express";
import express from "express";
import { repoName } from "../../protocol/job-spec.ts";
import { newestCommitOf } from "../../publish/newest-commit.ts";
import { jobJson, type Site } from "../site.ts";
import { sourcePage } from "../views/source-page.ts";

/** `GET /m/OWNER/NAME`: one model with everything made of it. */
export function modelRoutes(site: Site): Router {
	const router = express.Router();
	router.get("/m/:owner/:name", async (request, response) => {
		const repo = repoName.safeParse(`${request.params.owner}/${request.params.name}`);
		if (!repo.success) {
			site.notFound(request, response, "There is no model of that name here.");
			return;
		}
		const [variants, jobs] = await Promise.all([
			site.data.listVariantsOfSource(repo.data),
			site.data.listJobsOfSource(repo.data, 20),
		]);
		if (variants.length === 0 && jobs.length === 0) {
			site.notFound(request, response, `This bot has made nothing of ${repo.data} yet.`);
			return;
		}
		const summaries = site.summarize(variants);
		const newestSha = newestCommitOf(jobs, variants);
		site.reply(request, response, { repo: repo.data, newestSha, variants: summaries, jobs: jobs.map(jobJson) }, () =>
			sourcePage(site.context(), { repo: repo.data, newestSha, variants: summaries, jobs }),
		);
	});
	return router;
}
