import type { Router } from "express";
import express from "express";
import { z } from "zod";
import type { PublishedBefore } from "../../db/variants.ts";
import { parseContext, readFitQuestion } from "../../fit/fit-question.ts";
import { CACHE_TYPES } from "../../fit/memory.ts";
import { repoName } from "../../protocol/job-spec.ts";
import { Container } from "../../protocol/recipe-table.ts";
import { type Fit, fitReason, fitVariants, mainFile } from "../../publish/fitting.ts";
import { newestCommitOf } from "../../publish/newest-commit.ts";
import type { VariantRecord } from "../../records/variant.ts";
import { baseOf, jobJson, type Site } from "../site.ts";
import type { FitForm } from "../views/fit-section.ts";
import { sourcePage } from "../views/source-page.ts";

const text = (most: number) => z.string().trim().max(most).catch("").default("");
/** Addresses are written and shared by people: what does not parse counts as not given. */
const FitParameters = z.object({
	fits: text(100),
	context: text(20),
	container: Container.nullable().catch(null),
	cache: z.enum(CACHE_TYPES).catch("f16"),
});

function fitOf(
	asked: z.infer<typeof FitParameters>,
	variants: readonly VariantRecord[],
	newestSha: string | null,
	hubUrl: string,
): { readonly fit: Fit; readonly typed: FitForm } {
	const context = asked.context === "" ? null : parseContext(asked.context);
	const reading = asked.fits === "" ? null : readFitQuestion(asked.fits);
	const question = reading?.ok === true ? reading.question : null;
	const fit = fitVariants(variants, {
		hubUrl,
		newestSha,
		question: question === null ? null : { ...question, context: context ?? question.context, cache: asked.cache },
		context,
		cache: asked.cache,
		container: asked.container,
	});
	const misread =
		asked.context !== "" && context === null ? "The context is a number of tokens, as in 8k or 4096." : null;
	const message = reading?.ok === false ? reading.message : misread;
	return { fit, typed: { machine: asked.fits, context: asked.context, message } };
}

function fitJson(fit: Fit, typed: FitForm): unknown {
	return {
		memory: fit.question?.memory ?? null,
		machine: fit.question?.machine ?? null,
		context: fit.context,
		cache: fit.cache,
		recommended: fit.choice.recommended?.candidate.recipe ?? null,
		reason: fit.question === null ? null : fitReason(fit),
		message: typed.message,
		rows: fit.choice.rows.map(({ candidate, memory, fits, longestContext }) => ({
			recipe: candidate.recipe,
			repo: candidate.summary.repo,
			file: mainFile(candidate.manifest),
			memory,
			cacheIsKnown: candidate.shape !== null,
			measured: candidate.container === "gguf",
			fits,
			longestContext,
			klNats: candidate.klNats,
		})),
	};
}

function historyJson(before: PublishedBefore): unknown {
	return { ...before, publishedAt: before.publishedAt.toISOString() };
}

/** `GET /m/OWNER/NAME`: one model with everything made of it. */
export function modelRoutes(site: Site): Router {
	const router = express.Router();

	async function contentOf(repo: string, asked: z.infer<typeof FitParameters>, base: string) {
		const [variants, jobs, history] = await Promise.all([
			site.data.listVariantsOfSource(repo),
			site.data.listJobsOfSource(repo, 20),
			site.data.listHistoryOfSource(repo),
		]);
		if (variants.length === 0 && jobs.length === 0) return null;
		const summaries = site.summarize(variants);
		const newestSha = newestCommitOf(jobs, variants);
		const { fit, typed } = fitOf(asked, variants, newestSha, site.context().hubUrl);
		const twin = {
			repo,
			newestSha,
			fit: fitJson(fit, typed),
			variants: summaries,
			history: history.map(historyJson),
			jobs: jobs.map(jobJson),
		};
		const source = { repo, newestSha, variants: summaries, jobs, history, fit, typed, base };
		return { twin, page: () => sourcePage(site.context(), source) };
	}

	router.get("/m/:owner/:name", async (request, response) => {
		const repo = repoName.safeParse(`${request.params.owner}/${request.params.name}`);
		if (!repo.success) {
			site.notFound(request, response, "There is no model of that name here.");
			return;
		}
		const asked = FitParameters.parse(request.query);
		const base = baseOf(request);
		await site.replyKept(request, response, {
			scope: { kind: "source", repo: repo.data },
			key: ["/m", asked, base],
			make: () => contentOf(repo.data, asked, base),
			missing: `This bot has made nothing of ${repo.data} yet.`,
		});
	});
	return router;
}
