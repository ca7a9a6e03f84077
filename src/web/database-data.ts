import type { Clock } from "../clock.ts";
import { queuePlace } from "../db/admission.ts";
import { countModels, listModels } from "../db/catalogue.ts";
import type { Database } from "../db/database.ts";
import { listDeliveries } from "../db/deliveries.ts";
import { getJob, listJobEvents, listJobs } from "../db/jobs.ts";
import { countEverything } from "../db/metrics.ts";
import { listPublishedVariants, listVariantsOfJob, listVariantsOfSource } from "../db/variants.ts";
import { type Audience, isShown } from "../db/visibility.ts";
import type { ModelList, ModelQuery, WebData } from "./data.ts";

/** What the pages read, from the database: for everybody nothing of a private source, as though it were not there. */
export function databaseData(options: {
	readonly database: Database;
	readonly clock: Clock;
	readonly audience: Audience;
}): WebData {
	const { audience } = options;
	const { handle } = options.database;
	const modelsLike = async (query: ModelQuery, similar: boolean): Promise<ModelList> => {
		const asked = { ...query, audience, similar };
		const [page, counted] = [await listModels(handle, asked), await countModels(handle, asked)];
		return { page, ...counted, similar };
	};
	return {
		listModels: async (query) => {
			const found = await modelsLike(query, false);
			if (found.models > 0 || query.words.length === 0) return found;
			const similar = await modelsLike(query, true);
			return similar.models > 0 ? similar : found;
		},
		listPublishedVariants: (query) =>
			listPublishedVariants(handle, {
				...(query.search === null ? {} : { search: query.search }),
				...(query.container === null ? {} : { container: query.container }),
				...(query.bits === null ? {} : { bits: query.bits }),
				sort: query.sort,
				cursor: query.cursor,
				limit: query.limit,
				audience,
			}),
		listVariantsOfSource: async (repo) =>
			(await isShown(handle, repo, audience)) ? await listVariantsOfSource(handle, repo) : [],
		listVariantsOfJob: (id) => listVariantsOfJob(handle, id, { layers: false }),
		listJobs: (query) => listJobs(handle, { ...query, audience }),
		listJobsOfSource: async (sourceRepo, limit) => (await listJobs(handle, { sourceRepo, limit, audience })).items,
		getJob: async (id) => {
			const job = await getJob(handle, id);
			return job !== null && (await isShown(handle, job.sourceRepo, audience)) ? job : null;
		},
		queuePlace: (id) => queuePlace(handle, id, options.clock.now(), audience),
		listJobEvents: (id, after, limit) => listJobEvents(handle, id, after, limit),
		listDeliveries: (query) => listDeliveries(handle, { ...query, audience }),
		counts: () => countEverything(handle, options.clock.now()),
	};
}
