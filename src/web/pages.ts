import type { Router } from "express";
import express from "express";
import type { JobControl } from "../commands/job-control.ts";
import type { Log } from "../log.ts";
import type { WebData } from "./data.ts";
import { createJobStreams, type JobStreams, type StreamClients } from "./job-stream.ts";
import { jobView } from "./job-view.ts";
import type { OperatorData } from "./operator-data.ts";
import { catalogueRoutes } from "./routes/catalogue-routes.ts";
import { deliveryRoutes } from "./routes/delivery-routes.ts";
import { feedRoutes } from "./routes/feed-routes.ts";
import { helpRoutes } from "./routes/help-routes.ts";
import { jobActionRoutes } from "./routes/job-action-routes.ts";
import { jobRoutes } from "./routes/job-routes.ts";
import { modelRoutes } from "./routes/model-routes.ts";
import { myRoutes } from "./routes/my-routes.ts";
import { operatorRoutes } from "./routes/operator-routes.ts";
import { pictureRoutes } from "./routes/picture-routes.ts";
import { variantRoutes } from "./routes/variant-routes.ts";
import { createSite, type Site } from "./site.ts";
import type { About } from "./views/about-page.ts";
import type { PageContext } from "./views/layout.ts";

/** The pages as one audience sees them. */
export type Pages = { readonly site: Site; readonly streams: JobStreams; readonly router: Router };

export type PagesOptions = {
	readonly hubUrl: string;
	readonly about: About;
	readonly log: Log;
	readonly clients: StreamClients;
	readonly pollMilliseconds: number;
	readonly keepAliveMilliseconds: number;
	/** What people may do to jobs; `null`: nothing, here. */
	readonly jobControl: JobControl | null;
	/** This site's own origin, where people can sign in. */
	readonly origin: string | null;
	readonly operatorData: OperatorData | null;
	/** Plots that were drawn. */
	readonly pictures: Map<string, Buffer>;
};

/** `streams`: those of everybody, for jobs that everybody sees: one look at the database serves them all. */
export function createPages(
	options: PagesOptions,
	audience: {
		readonly data: WebData;
		readonly context: () => PageContext;
		/** Whether it sees what the operator sees. */
		readonly isOperator: () => boolean;
		readonly everybody: Pick<Pages, "site" | "streams"> | null;
	},
): Pages {
	const { data, context, everybody, isOperator } = audience;
	const { log, origin, jobControl } = options;
	const site = createSite({ data, hubUrl: options.hubUrl, context });
	const streams = createJobStreams({
		data,
		log,
		clients: options.clients,
		pollMilliseconds: options.pollMilliseconds,
		keepAliveMilliseconds: options.keepAliveMilliseconds,
		view: (job, progress) => jobView(site, job, progress),
	});
	const handle: JobStreams["handle"] = (request, response, job) => {
		if (everybody === null) {
			streams.handle(request, response, job);
			return;
		}
		everybody.site.data.getJob(job.id).then(
			(shared) => (shared === null ? streams : everybody.streams).handle(request, response, job),
			(error: unknown) => {
				log.error("A job's event stream could not start", { job: job.id, error });
				response.status(500).json({ error: "The stream could not start." });
			},
		);
	};
	const router = express.Router();
	router.use(
		catalogueRoutes(site),
		variantRoutes(site),
		modelRoutes(site),
		pictureRoutes(site, options.pictures),
		jobRoutes(site, { handle }, jobControl),
		deliveryRoutes(site),
		helpRoutes(site, options.about),
		feedRoutes(site),
		jobActionRoutes(site, { origin, jobControl, log }),
		myRoutes(site),
		operatorRoutes(site, { origin, isOperator, operatorData: options.operatorData, log }),
	);
	return { site, streams, router };
}
