import type { Request, Response } from "express";
import { summarizeVariant, type VariantSummary } from "../publish/variant-summary.ts";
import type { JobRecord } from "../records/job.ts";
import type { VariantRecord } from "../records/variant.ts";
import type { WebData } from "./data.ts";
import type { Viewer } from "./sign-in/viewer.ts";
import type { PageContext } from "./views/layout.ts";
import { messagePage } from "./views/message-page.ts";

/** Rows of one page of a list. */
export const PAGE_ROWS = 25;

/** What the routes of pages are built with. */
export type Site = {
	readonly data: WebData;
	/** Who looks; `null`: nobody that is known. */
	readonly viewer: () => Viewer | null;
	/** What every page shows around its own content. */
	readonly context: () => PageContext;
	readonly summarize: (variants: readonly VariantRecord[]) => VariantSummary[];
	/** The page, or its JSON twin at the same address. */
	readonly reply: (request: Request, response: Response, twin: unknown, page: () => string) => void;
	/** A page that says one thing. */
	readonly message: (title: string, text: string) => string;
	readonly notFound: (request: Request, response: Response, text: string) => void;
};

export function createSite(options: {
	readonly data: WebData;
	readonly hubUrl: string;
	readonly context: () => PageContext;
}): Site {
	const { data, hubUrl, context } = options;

	function reply(request: Request, response: Response, twin: unknown, page: () => string): void {
		response.vary("Accept");
		if (response.get("Cache-Control") === undefined) response.set("Cache-Control", "no-cache");
		if (request.accepts(["html", "json"]) === "json") response.json(twin);
		else response.type("html").send(page());
	}

	return {
		data,
		viewer: () => context().viewer,
		context,
		reply,
		summarize: (variants) => variants.map((variant) => summarizeVariant(variant, hubUrl)),
		message: (title, text) => messagePage(context(), { title, text }),
		notFound: (request, response, text) => {
			response.status(404);
			reply(request, response, { error: text }, () => messagePage(context(), { title: "Not found", text }));
		},
	};
}

/** A job as the JSON twins show it: without the handle by which its runner knows the run. */
export function jobJson(job: JobRecord): unknown {
	const { runnerHandle: _kept, ...shown } = job;
	return shown;
}
