import type { QueuePlace } from "../db/admission.ts";
import type { CatalogueModel, Facets, ModelFilters, ModelSort } from "../db/catalogue.ts";
import type { Page } from "../db/cursor.ts";
import type { DataScope } from "../db/data-version.ts";
import type { EventQuery } from "../db/jobs.ts";
import type { Counts } from "../db/metrics.ts";
import type { KnownSource } from "../db/sources-of-namespaces.ts";
import type { PublishedBefore } from "../db/variants.ts";
import type { Container } from "../protocol/recipe-table.ts";
import type { DeliveryRecord } from "../records/delivery.ts";
import type { JobEventRecord, JobRecord } from "../records/job.ts";
import type { VariantRecord } from "../records/variant.ts";

export const VARIANT_SORTS = ["newest", "kl", "size"] as const;
type VariantSort = (typeof VARIANT_SORTS)[number];

export type VariantQuery = {
	/** Part of the source's or the published repo's name. */
	readonly search: string | null;
	readonly container: Container | null;
	readonly bits: number | null;
	readonly sort: VariantSort;
	/** What the page before gave as `next`; the first page when it is none of ours. */
	readonly cursor: string | null;
	readonly limit: number;
};

export type ModelQuery = ModelFilters & {
	readonly sort: ModelSort;
	readonly cursor: string | null;
	readonly limit: number;
};

export type ModelList = {
	readonly page: Page<CatalogueModel>;
	readonly models: number;
	readonly facets: Facets;
	/** No model has the words: these are like them. */
	readonly similar: boolean;
};

/** What the pages and the webhook need of the database, as plain functions. */
export type WebData = {
	/** Of what all the world sees of it now; `null` where not all the world looks: nothing made of it is kept. */
	version(scope: DataScope): Promise<string | null>;
	listModels(query: ModelQuery): Promise<ModelList>;
	listPublishedVariants(query: VariantQuery): Promise<Page<VariantRecord>>;
	listVariantsOfSource(sourceRepo: string): Promise<readonly VariantRecord[]>;
	/** What was published of it, commit by commit, the newest first. */
	listHistoryOfSource(sourceRepo: string): Promise<readonly PublishedBefore[]>;
	/** With its whole manifest. */
	getVariant(id: string): Promise<VariantRecord | null>;
	listVariantsOfJob(jobId: string): Promise<readonly VariantRecord[]>;
	listJobs(query: { readonly cursor: string | null; readonly limit: number }): Promise<Page<JobRecord>>;
	listJobsOfSource(sourceRepo: string, limit: number): Promise<readonly JobRecord[]>;
	getJob(id: string): Promise<JobRecord | null>;
	/** Where it stands in line for a runner; `null` when it does not. */
	queuePlace(jobId: string): Promise<QueuePlace | null>;
	listJobEvents(jobId: string, afterSequence: number, limit: number): Promise<readonly JobEventRecord[]>;
	/** A job's events whose text has what is looked for, in their order. */
	searchJobEvents(jobId: string, query: EventQuery): Promise<readonly JobEventRecord[]>;
	listDeliveries(query: { readonly cursor: string | null; readonly limit: number }): Promise<Page<DeliveryRecord>>;
	/** Models in these namespaces that there ever was a job on. */
	listSourcesOf(query: {
		readonly namespaces: readonly string[];
		readonly cursor: string | null;
		readonly limit: number;
	}): Promise<Page<KnownSource>>;
	counts(): Promise<Counts>;
};
