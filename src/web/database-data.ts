import type { Clock } from "../clock.ts";
import type { Database } from "../db/database.ts";
import { listDeliveries } from "../db/deliveries.ts";
import { getJob, listJobEvents, listJobs } from "../db/jobs.ts";
import { countEverything } from "../db/metrics.ts";
import { listPublishedVariants, listVariantsOfJob, listVariantsOfSource } from "../db/variants.ts";
import type { WebData } from "./data.ts";

/** What the pages read, from the database. */
export function databaseData(options: {
	readonly database: Database;
	readonly clock: Clock;
	readonly storeDelivery: WebData["storeDelivery"];
}): WebData {
	const { handle } = options.database;
	return {
		listPublishedVariants: (query) =>
			listPublishedVariants(handle, {
				...(query.search === null ? {} : { search: query.search }),
				...(query.container === null ? {} : { container: query.container }),
				...(query.bits === null ? {} : { bits: query.bits }),
				sort: query.sort,
				cursor: query.cursor,
				limit: query.limit,
			}),
		listVariantsOfSource: (repo) => listVariantsOfSource(handle, repo),
		listVariantsOfJob: (id) => listVariantsOfJob(handle, id),
		listJobs: (query) => listJobs(handle, query),
		listJobsOfSource: async (sourceRepo, limit) => (await listJobs(handle, { sourceRepo, limit })).items,
		getJob: (id) => getJob(handle, id),
		listJobEvents: (id, after, limit) => listJobEvents(handle, id, after, limit),
		listDeliveries: (query) => listDeliveries(handle, query),
		storeDelivery: options.storeDelivery,
		counts: () => countEverything(handle, options.clock.now()),
	};
}
