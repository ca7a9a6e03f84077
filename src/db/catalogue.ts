import { type RawBuilder, sql } from "kysely";
import type { Container } from "../protocol/recipe-table.ts";
import { type Cursor, decodeCursor, isStorable, type Page, pageLimit, pageOf } from "./cursor.ts";
import type { Handle } from "./database.ts";
import { type Audience, shownTo } from "./visibility.ts";

/** A model that something is published of. */
export type CatalogueModel = {
	readonly repo: string;
	readonly variants: number;
	/** Bytes of its smallest and its largest variant. */
	readonly leastBytes: number | null;
	readonly mostBytes: number | null;
	readonly leastKlNats: number | null;
	readonly publishedAt: string;
	readonly containers: readonly string[];
	readonly bits: readonly number[];
	readonly family: string | null;
	readonly parameters: number | null;
	readonly license: string | null;
	/** The least memory that one of its files takes with a context of 8k; `null`: not known. */
	readonly leastMemory: number | null;
};

export const MODEL_SORTS = ["newest", "kl", "size"] as const;
export type ModelSort = (typeof MODEL_SORTS)[number];

export type ModelFilters = {
	/** Words that all have to be there, each as it begins: letters and digits only. */
	readonly words: readonly string[];
	readonly container: Container | null;
	readonly bits: number | null;
	readonly family: string | null;
	readonly license: string | null;
	/** Bounds of the number of parameters: from, below. */
	readonly parameters: readonly [number, number] | null;
	/** The smallest variant has at most so many bytes. */
	readonly mostBytes: number | null;
	/** One of its files runs in so many bytes with a context of 8k. */
	readonly fitsBytes: number | null;
	/** Published since then. */
	readonly since: Date | null;
};

export type FacetName = "container" | "bits" | "family" | "license";
export type Facets = Readonly<Record<FacetName, readonly { readonly value: string; readonly count: number }[]>>;

const MAXIMUM_WORDS = 12;
const FACET_VALUES = 40;

function searchTerms(words: readonly string[]): string {
	return words
		.filter((word) => /^[a-z0-9]{1,64}$/.test(word))
		.slice(0, MAXIMUM_WORDS)
		.map((word) => `${word}:*`)
		.join(" & ");
}

function conditionsOf(filters: ModelFilters, audience: Audience, similar: boolean): readonly RawBuilder<boolean>[] {
	const conditions: RawBuilder<boolean>[] = [shownTo(audience, sql`catalogue_models.repo`)];
	const terms = searchTerms(filters.words);
	if (terms !== "") {
		conditions.push(
			similar
				? sql<boolean>`repo in (select models_named_like(${filters.words.slice(0, MAXIMUM_WORDS).join(" ")}))`
				: sql<boolean>`search @@ to_tsquery('simple', ${terms})`,
		);
	}
	if (filters.container !== null) conditions.push(sql<boolean>`containers @> array[${filters.container}]::text[]`);
	if (filters.bits !== null) conditions.push(sql<boolean>`bits @> array[${filters.bits}]::integer[]`);
	if (filters.family !== null) conditions.push(sql<boolean>`family = ${filters.family}`);
	if (filters.license !== null) conditions.push(sql<boolean>`license = ${filters.license}`);
	if (filters.parameters !== null) {
		const [from, below] = filters.parameters;
		conditions.push(sql<boolean>`parameters >= ${from}::float8 and parameters < ${below}::float8`);
	}
	if (filters.mostBytes !== null) conditions.push(sql<boolean>`least_bytes <= ${filters.mostBytes}::bigint`);
	if (filters.fitsBytes !== null) conditions.push(sql<boolean>`least_memory <= ${filters.fitsBytes}::bigint`);
	if (filters.since !== null) conditions.push(sql<boolean>`published_at >= ${filters.since}`);
	return conditions;
}

function afterCursor(sort: ModelSort, cursor: Cursor): RawBuilder<boolean> | null {
	const [value, id] = cursor;
	switch (sort) {
		case "newest": {
			const at = new Date(value);
			return isStorable(at) ? sql<boolean>`(published_at, id) < (${at}, ${id}::uuid)` : null;
		}
		case "kl":
			return typeof value === "number" ? sql<boolean>`(least_kl, id) > (${value}::float8, ${id}::uuid)` : null;
		case "size":
			return Number.isSafeInteger(value) ? sql<boolean>`(least_bytes, id) > (${value}::bigint, ${id}::uuid)` : null;
	}
}

/** One page of models. `similar`: those whose words are like the ones that were written, where none has them. */
export async function listModels(
	handle: Handle,
	query: ModelFilters & {
		readonly sort: ModelSort;
		readonly cursor: string | null;
		readonly limit: number;
		readonly audience: Audience;
		readonly similar: boolean;
	},
): Promise<Page<CatalogueModel>> {
	const limit = pageLimit(query.limit);
	let select = handle
		.selectFrom("catalogue_models")
		.select(["repo", "id", "variants", "least_bytes", "most_bytes", "least_kl", "published_at", "containers", "bits"])
		.select(["family", "parameters", "license", "least_memory"]);
	for (const condition of conditionsOf(query, query.audience, query.similar)) select = select.where(condition);
	const cursor = decodeCursor(query.cursor);
	const after = cursor === null ? null : afterCursor(query.sort, cursor);
	if (after !== null) select = select.where(after);
	switch (query.sort) {
		case "newest":
			select = select.orderBy("published_at", "desc").orderBy("id", "desc");
			break;
		case "kl":
			select = select.where("least_kl", "is not", null).orderBy("least_kl").orderBy("id");
			break;
		case "size":
			select = select.where("least_bytes", "is not", null).orderBy("least_bytes").orderBy("id");
			break;
	}
	const rows = await select.limit(limit + 1).execute();
	const shown = (row: (typeof rows)[number]): CatalogueModel => ({
		repo: row.repo,
		variants: row.variants,
		leastBytes: row.least_bytes === null ? null : Number(row.least_bytes),
		mostBytes: row.most_bytes === null ? null : Number(row.most_bytes),
		leastKlNats: row.least_kl,
		publishedAt: row.published_at.toISOString(),
		containers: row.containers,
		bits: row.bits,
		family: row.family,
		parameters: row.parameters,
		license: row.license,
		leastMemory: row.least_memory === null ? null : Number(row.least_memory),
	});
	return pageOf(rows, limit, shown, (row) => {
		switch (query.sort) {
			case "newest":
				return [row.published_at.toISOString(), row.id];
			case "kl":
				return [row.least_kl ?? 0, row.id];
			case "size":
				return [Number(row.least_bytes ?? 0), row.id];
		}
	});
}

/** How many models match, and how many of them have each value. */
export async function countModels(
	handle: Handle,
	query: ModelFilters & { readonly audience: Audience; readonly similar: boolean },
): Promise<{ readonly models: number; readonly facets: Facets }> {
	const where = sql.join(conditionsOf(query, query.audience, query.similar), sql` and `);
	const { rows } = await sql<{ facet: string; value: string | null; count: number }>`
		with found as materialized (select containers, bits, family, license from catalogue_models where ${where})
		select 'all' as facet, null as value, count(*)::int as count from found
		union all select 'container', value, count(*)::int from found, unnest(containers) as value group by value
		union all select 'bits', value::text, count(*)::int from found, unnest(bits) as value group by value
		union all select 'family', family, count(*)::int from found where family is not null group by family
		union all select 'license', license, count(*)::int from found where license is not null group by license
	`.execute(handle);
	const valuesOf = (facet: FacetName) =>
		rows
			.flatMap((row) => (row.facet === facet && row.value !== null ? [{ value: row.value, count: row.count }] : []))
			.toSorted((one, other) => other.count - one.count || one.value.localeCompare(other.value))
			.slice(0, FACET_VALUES);
	return {
		models: rows.find((row) => row.facet === "all")?.count ?? 0,
		facets: {
			container: valuesOf("container"),
			bits: valuesOf("bits").toSorted((one, other) => Number(one.value) - Number(other.value)),
			family: valuesOf("family"),
			license: valuesOf("license"),
		},
	};
}
