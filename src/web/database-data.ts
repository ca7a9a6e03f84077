import type { Clock } from "../clock.ts";
import { queuePlace } from "../db/admission.ts";
import { countModels, listModels } from "../db/catalogue.ts";
import { dataVersion } from "../db/data-version.ts";
import type { Database } from "../db/database.ts";
import { listDeliveries } from "../db/deliveries.ts";
import { getJob, listJobEvents, listJobs, searchJobEvents } from "../db/jobs.ts";
import { countEverything } from "../db/metrics.ts";
import { listSourcesOfNamespaces } from "../db/sources-of-namespaces.ts";
import {
	getVariant,
	listHistoryOfSource,
	listPublishedVariants,
	listVariantsOfJob,
	listVariantsOfSource,
} from "../db/variants.ts";
import { type Audience, isShown } from "../db/visibility.ts";
import type { ModelList, ModelQuery, WebData } from "./data.ts";

/** What the pages read, from the database: for everybody nothing of a private source, as though it were not there. */
export function databaseData(options: {
	readonly database: Database;
	readonly clock: Clock;
	/** Asked at each look where it may change: rights that somebody lost must not show any longer. */
	readonly audience: Audience | (() => Promise<Audience>);
}): WebData {
	const audienceNow = async (): Promise<Audience> =>
		typeof options.audience === "function" ? await options.audience() : options.audience;
	const { handle } = options.database;
	const modelsLike = async (query: ModelQuery, similar: boolean): Promise<ModelList> => {
		const asked = { ...query, audience: await audienceNow(), similar };
		const counted = await countModels(handle, asked);
		const page = counted.models === 0 ? { items: [], next: null } : await listModels(handle, asked);
		return { page, ...counted, similar };
	};
	return {
		version: async (scope) => (options.audience === "everybody" ? await dataVersion(handle, scope) : null),
		listModels: async (query) => {
			const found = await modelsLike(query, false);
			if (found.models > 0 || query.words.length === 0) return found;
			const similar = await modelsLike(query, true);
			return similar.models > 0 ? similar : found;
		},
		listPublishedVariants: async (query) =>
			await listPublishedVariants(handle, {
				...(query.search === null ? {} : { search: query.search }),
				...(query.container === null ? {} : { container: query.container }),
				...(query.bits === null ? {} : { bits: query.bits }),
				sort: query.sort,
				cursor: query.cursor,
				limit: query.limit,
				audience: await audienceNow(),
			}),
		listVariantsOfSource: async (repo) =>
			(await isShown(handle, repo, await audienceNow())) ? await listVariantsOfSource(handle, repo) : [],
		listHistoryOfSource: async (repo) =>
			(await isShown(handle, repo, await audienceNow())) ? await listHistoryOfSource(handle, repo) : [],
		getVariant: async (id) => await getVariant(handle, id, await audienceNow()),
		listVariantsOfJob: (id) => listVariantsOfJob(handle, id, { layers: false }),
		listJobs: async (query) => await listJobs(handle, { ...query, audience: await audienceNow() }),
		listJobsOfSource: async (sourceRepo, limit) =>
			(await listJobs(handle, { sourceRepo, limit, audience: await audienceNow() })).items,
		getJob: async (id) => await getJob(handle, id, await audienceNow()),
		queuePlace: async (id) => await queuePlace(handle, id, options.clock.now(), await audienceNow()),
		listJobEvents: (id, after, limit) => listJobEvents(handle, id, after, limit),
		searchJobEvents: (id, query) => searchJobEvents(handle, id, query),
		listDeliveries: async (query) => await listDeliveries(handle, { ...query, audience: await audienceNow() }),
		listSourcesOf: async (query) => await listSourcesOfNamespaces(handle, { ...query, audience: await audienceNow() }),
		counts: () => countEverything(handle, options.clock.now()),
	};
}
