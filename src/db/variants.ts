import { sql } from "kysely";
import type { Refusal } from "../errors.ts";
import { usualMemory } from "../fit/usual-memory.ts";
import { ownBytes } from "../protocol/importance-file.ts";
import type { Manifest } from "../protocol/manifest.ts";
import { ONE_COMMIT_PATTERN } from "../protocol/one-commit.ts";
import type { Recipe } from "../protocol/recipe.ts";
import { recipeHash } from "../protocol/recipe.ts";
import type { Container } from "../protocol/recipe-table.ts";
import { TERMINAL_STATES } from "../records/job.ts";
import type { SourceContent } from "../records/source.ts";
import type { VariantRecord, VariantState } from "../records/variant.ts";
import { type Cursor, decodeCursor, isStorable, type Page, pageLimit, pageOf } from "./cursor.ts";
import type { Handle } from "./database.ts";
import { likePattern } from "./like-pattern.ts";
import { variantOfRow } from "./records-of-rows.ts";
import { storableJson, storableJsonOrNull } from "./storable.ts";
import { type Audience, shownTo } from "./visibility.ts";

/** A manifest's per-layer evidence is hundreds of entries that no list shows. */
const withoutLayers = sql<unknown>`case when manifest is null then null else jsonb_set(manifest, '{layers}', '[]') end`;

/**
 * Whether the source's main branch is elsewhere: a newer commit was seen after the variant was asked for, or it was asked
 * for by its commit and has a repo of its own.
 */
const isOlder = sql<boolean>`exists (select 1 from known_heads where known_heads.repo = variants.source_repo
	and known_heads.sha <> variants.source_sha
	and (known_heads.seen_at > variants.created_at or variants.target_repo ~ ${ONE_COMMIT_PATTERN}))`;

const COLUMNS = [
	"id",
	"source_repo",
	"source_sha",
	"recipe",
	"recipe_hash",
	"job_id",
	"state",
	"target_repo",
	"target_sha",
	"refusal",
	"current",
	"reused_from",
	"container",
	"bits",
	"kl_mean",
	"bytes",
	"created_at",
	"published_at",
] as const;

export async function insertVariant(
	handle: Handle,
	variant: {
		readonly id: string;
		readonly sourceRepo: string;
		readonly sourceSha: string;
		readonly recipe: Recipe;
		readonly jobId: string;
		readonly targetRepo: string;
		readonly reusedFrom?: string | null;
		readonly now: Date;
	},
): Promise<VariantRecord> {
	const row = await handle
		.insertInto("variants")
		.values({
			id: variant.id,
			source_repo: variant.sourceRepo,
			source_sha: variant.sourceSha,
			recipe: variant.recipe.canonical,
			recipe_hash: recipeHash(variant.recipe),
			job_id: variant.jobId,
			state: "wanted",
			target_repo: variant.targetRepo,
			manifest: null,
			target_sha: null,
			refusal: null,
			reused_from: variant.reusedFrom ?? null,
			container: variant.recipe.name.container,
			bits: variant.recipe.name.bits,
			kl_mean: null,
			bytes: null,
			created_at: variant.now,
			published_at: null,
		})
		.returningAll()
		.executeTakeFirstOrThrow();
	return variantOfRow(row);
}

/** Gives a variant that came to nothing, or does not stand where it is wanted now, to another job. */
export async function reassignVariant(
	handle: Handle,
	request: { readonly id: string; readonly jobId: string; readonly targetRepo: string },
): Promise<VariantRecord> {
	const row = await handle
		.updateTable("variants")
		.set({
			job_id: request.jobId,
			target_repo: request.targetRepo,
			state: "wanted",
			refusal: null,
			reused_from: null,
			current: false,
			manifest: null,
			kl_mean: null,
			bytes: null,
			published_at: null,
		})
		.where("id", "=", request.id)
		.where(({ eb, or }) =>
			or([eb("state", "!=", "published"), eb("current", "=", false), eb("target_repo", "!=", request.targetRepo)]),
		)
		.returningAll()
		.executeTakeFirstOrThrow();
	return variantOfRow(row);
}

/** Makes the variants of a job that are not published wanted again. */
export async function resetVariantsOfJob(handle: Handle, jobId: string): Promise<void> {
	await handle
		.updateTable("variants")
		.set({ state: "wanted", refusal: null, manifest: null, kl_mean: null, bytes: null })
		.where("job_id", "=", jobId)
		.where("state", "!=", "published")
		.execute();
}

export async function setVariantState(
	handle: Handle,
	request: {
		readonly id: string;
		readonly state: Exclude<VariantState, "published">;
		readonly refusal: Refusal | null;
	},
): Promise<void> {
	await handle
		.updateTable("variants")
		.set({ state: request.state, refusal: storableJsonOrNull(request.refusal) })
		.where("id", "=", request.id)
		.where("state", "!=", "published")
		.execute();
}

/** Its files were checked: the manifest now holds what the engine measured, as it is to be published. */
export async function verifyVariantRow(
	handle: Handle,
	request: { readonly id: string; readonly manifest: Manifest },
): Promise<void> {
	await handle
		.updateTable("variants")
		.set({
			state: "verified",
			manifest: storableJson(request.manifest),
			memory_bytes: usualMemory(request.manifest),
			refusal: null,
		})
		.where("id", "=", request.id)
		.where("state", "!=", "published")
		.execute();
}

/** The target repos no longer hold these variants: catalogue and cards leave them out, and nothing is taken over from them. */
export async function retireVariants(handle: Handle, ids: readonly string[]): Promise<void> {
	if (ids.length === 0) return;
	await handle.updateTable("variants").set({ current: false }).where("id", "in", ids).execute();
}

/** Has the variants of a job that are not published made by a run after all. */
export async function dropReuse(handle: Handle, jobId: string): Promise<void> {
	await handle
		.updateTable("variants")
		.set({ reused_from: null })
		.where("job_id", "=", jobId)
		.where("state", "!=", "published")
		.execute();
}

/**
 * Variants of other commits of a repo with the same weights, whose files a new commit's may take over: those that stand
 * in their repo's head, then those that a job still works on. `companions`: whether tokenizer and template are the same
 * as well.
 */
export async function listReusable(
	tx: Handle,
	source: { readonly repo: string; readonly sha: string; readonly content: SourceContent },
): Promise<readonly { readonly variant: VariantRecord; readonly isLive: boolean; readonly companions: boolean }[]> {
	const rows = await tx
		.selectFrom("variants")
		.innerJoin("jobs", "jobs.id", "variants.job_id")
		.select(COLUMNS.map((column) => `variants.${column}` as const))
		.select(sql<unknown>`null`.as("manifest"))
		.select("jobs.state as job_state")
		.select(sql<string | null>`jobs.facts->'content'->>'companions'`.as("companions"))
		.where("variants.source_repo", "=", source.repo)
		.where("variants.source_sha", "!=", source.sha)
		// A repo made for one commit stays that commit's.
		.where(sql<boolean>`variants.target_repo !~ ${ONE_COMMIT_PATTERN}`)
		.where(sql<boolean>`jobs.facts->'content'->>'weights' = ${source.content.weights}`)
		.where(({ eb, and, or }) =>
			or([
				and([eb("variants.state", "=", "published"), eb("variants.current", "=", true)]),
				and([
					eb("variants.state", "in", ["wanted", "staged", "verified"]),
					eb("variants.reused_from", "is", null),
					eb("jobs.state", "not in", TERMINAL_STATES),
					eb("jobs.stop_as", "is", null),
				]),
			]),
		)
		.orderBy("variants.created_at", "desc")
		.execute();
	return rows
		.map((row) => ({
			variant: variantOfRow(row),
			isLive: row.state !== "published",
			companions: row.companions === source.content.companions,
		}))
		.toSorted((one, other) => Number(one.isLive) - Number(other.isLive));
}

/** Marks every unpublished variant of a job failed. */
export async function failVariantsOfJob(handle: Handle, jobId: string, refusal: Refusal): Promise<void> {
	await handle
		.updateTable("variants")
		.set({ state: "failed", refusal: storableJson(refusal) })
		.where("job_id", "=", jobId)
		.where("state", "in", ["wanted", "staged", "verified"])
		.execute();
}

export async function stageVariant(
	handle: Handle,
	request: { readonly id: string; readonly manifest: Manifest },
): Promise<void> {
	const { manifest } = request;
	const measured = manifest.evaluation.measured.find((row) => row.quantizer === manifest.quantizer);
	await handle
		.updateTable("variants")
		.set({
			state: "staged",
			manifest: storableJson(manifest),
			kl_mean: measured?.report.klNats.mean ?? null,
			bytes: ownBytes(manifest),
			memory_bytes: usualMemory(manifest),
			refusal: null,
		})
		.where("id", "=", request.id)
		.where("state", "!=", "published")
		.execute();
}

/** Records a publication in `variant.targetRepo`; an older variant that the new files replace is no longer current. */
export async function publishVariantRow(
	handle: Handle,
	request: { readonly variant: VariantRecord; readonly targetSha: string; readonly now: Date },
): Promise<void> {
	const { variant } = request;
	await handle
		.updateTable("variants")
		.set({ current: false })
		.where("target_repo", "=", variant.targetRepo)
		.where("recipe_hash", "=", variant.recipeHash)
		.where("id", "!=", variant.id)
		.execute();
	await handle
		.updateTable("variants")
		.set({
			state: "published",
			target_repo: variant.targetRepo,
			target_sha: request.targetSha,
			current: true,
			refusal: null,
			published_at: request.now,
		})
		.where("id", "=", variant.id)
		.where("state", "!=", "published")
		.execute();
}

export async function getVariant(
	handle: Handle,
	id: string,
	audience: Audience = "operator",
): Promise<VariantRecord | null> {
	const row = await handle
		.selectFrom("variants")
		.selectAll()
		.where("id", "=", id)
		.where(shownTo(audience, sql`variants.source_repo`))
		.executeTakeFirst();
	return row === undefined ? null : variantOfRow(row);
}

/** In the order they were asked for, manifests whole unless their layers are left out. */
export async function listVariantsOfJob(
	handle: Handle,
	jobId: string,
	options: { readonly layers: boolean } = { layers: true },
): Promise<readonly VariantRecord[]> {
	const rows = await handle
		.selectFrom("variants")
		.select(COLUMNS)
		.select(options.layers ? "manifest" : withoutLayers.as("manifest"))
		.where("job_id", "=", jobId)
		.orderBy("created_at")
		.orderBy("recipe")
		.execute();
	return rows.map(variantOfRow);
}

export async function listVariantsOfSourceCommit(
	handle: Handle,
	source: { readonly repo: string; readonly sha: string },
): Promise<readonly VariantRecord[]> {
	const rows = await handle
		.selectFrom("variants")
		.select(COLUMNS)
		.select(withoutLayers.as("manifest"))
		.where("source_repo", "=", source.repo)
		.where("source_sha", "=", source.sha)
		.orderBy("created_at")
		.orderBy("recipe")
		.execute();
	return rows.map(variantOfRow);
}

/** Every variant of a repo but those that a newer one replaced, newest first, at most 200; manifests come without layers. */
export async function listVariantsOfSource(
	handle: Handle,
	sourceRepo: string,
	options: { readonly publishedOnly?: boolean } = {},
): Promise<readonly VariantRecord[]> {
	let query = handle
		.selectFrom("variants")
		.select(COLUMNS)
		.select(withoutLayers.as("manifest"))
		.where("source_repo", "=", sourceRepo);
	if (options.publishedOnly === true) query = query.where("state", "=", "published");
	query = query.where(({ eb, or }) => or([eb("state", "!=", "published"), eb("current", "=", true)]));
	const rows = await query.orderBy("created_at", "desc").orderBy("recipe").limit(200).execute();
	return rows.map(variantOfRow);
}

/** What was published of a source, commit by commit, the newest first; `isCurrent`: it still stands on the Hub. */
export type PublishedBefore = {
	readonly id: string;
	readonly sourceSha: string;
	readonly recipe: string;
	readonly klNats: number | null;
	readonly bytes: number | null;
	readonly publishedAt: Date;
	readonly isCurrent: boolean;
};

const MAXIMUM_HISTORY = 400;

/** Nothing of the manifests is read for it. */
export async function listHistoryOfSource(handle: Handle, sourceRepo: string): Promise<readonly PublishedBefore[]> {
	const rows = await handle
		.selectFrom("variants")
		.select(["id", "source_sha", "recipe", "kl_mean", "bytes", "current", "created_at", "published_at"])
		.where("source_repo", "=", sourceRepo)
		.where("state", "=", "published")
		.orderBy("published_at", "desc")
		.orderBy("recipe")
		.limit(MAXIMUM_HISTORY)
		.execute();
	return rows.map((row) => ({
		id: row.id,
		sourceSha: row.source_sha,
		recipe: row.recipe,
		klNats: row.kl_mean,
		bytes: row.bytes === null ? null : Number(row.bytes),
		publishedAt: row.published_at ?? row.created_at,
		isCurrent: row.current,
	}));
}

const NO_ID = "00000000-0000-0000-0000-000000000000";

/** Computes what runs of earlier variants take, which the database has no column for before. */
export async function fillMemory(handle: Handle): Promise<void> {
	for (let after = NO_ID; ; ) {
		const rows = await handle
			.selectFrom("variants")
			.select(["id"])
			.select(withoutLayers.as("manifest"))
			.where("current", "=", true)
			.where("memory_bytes", "is", null)
			.where("id", ">", after)
			.orderBy("id")
			.limit(200)
			.execute();
		const known = rows.flatMap(({ id, manifest }) => {
			const memory = manifest === null ? null : usualMemory(manifest as Manifest);
			return memory === null ? [] : [{ id, memory }];
		});
		if (known.length > 0) {
			await sql`update variants set memory_bytes = known.memory
				from jsonb_to_recordset(${JSON.stringify(known)}::jsonb) as known(id uuid, memory bigint)
				where variants.id = known.id`.execute(handle);
		}
		const last = rows.at(-1);
		if (last === undefined || rows.length < 200) break;
		after = last.id;
	}
	// A trigger takes the least of each model's.
	await sql`update catalogue_models set repo = repo`.execute(handle);
}

/** Whether a repo is one that we publish to. */
export async function isTargetRepo(handle: Handle, repo: string): Promise<boolean> {
	const row = await handle
		.selectFrom("variants")
		.select("id")
		.where("target_repo", "=", repo)
		.limit(1)
		.executeTakeFirst();
	return row !== undefined;
}

type VariantSort = "newest" | "kl" | "size";

type VariantQuery = {
	/** Part of the source's or the target's name. */
	readonly search?: string;
	/** One source repo. */
	readonly base?: string;
	readonly audience?: Audience;
	readonly container?: Container;
	readonly bits?: number;
	readonly sort?: VariantSort;
	readonly cursor?: string | null;
	readonly limit?: number;
};

function afterCursor(sort: VariantSort, cursor: Cursor) {
	const [value, id] = cursor;
	switch (sort) {
		case "newest": {
			const at = new Date(value);
			return !isStorable(at) ? null : sql<boolean>`(published_at, id) < (${at}, ${id}::uuid)`;
		}
		case "kl":
			return typeof value === "number" ? sql<boolean>`(kl_mean, id) > (${value}::float8, ${id}::uuid)` : null;
		case "size":
			return Number.isSafeInteger(value) ? sql<boolean>`(bytes, id) > (${value}::bigint, ${id}::uuid)` : null;
	}
}

/** What is searched, as the index has it. */
const SEARCHED = sql<string>`(source_repo || ' ' || target_repo || ' ' || recipe)`;
const LOOKED_AT = 500;
const COMMON_HITS = 10;

/**
 * Whether many variants have the text, by the newest ones: in order, a page is soon full then. Otherwise the index finds
 * the few; of many it would collect all before they are sorted.
 */
async function isCommon(handle: Handle, pattern: string): Promise<boolean> {
	const { rows } = await sql<{ hits: number }>`select count(*)::int as hits from (
			select source_repo, target_repo, recipe from variants where current
			order by published_at desc, id desc limit ${sql.lit(LOOKED_AT)}
		) as newest where ${SEARCHED} ilike ${pattern}`.execute(handle);
	return (rows[0]?.hits ?? 0) >= COMMON_HITS;
}

/** The catalogue: what stands on the Hub now. Manifests come without layers. */
export async function listPublishedVariants(handle: Handle, options: VariantQuery = {}): Promise<Page<VariantRecord>> {
	const limit = pageLimit(options.limit);
	const sort = options.sort ?? "newest";
	// Which ones first: sorted with their manifests, all that is found would be read whole for one page of it.
	let query = handle
		.selectFrom("variants")
		.select("id")
		.where("current", "=", true)
		.where(shownTo(options.audience ?? "operator", sql`variants.source_repo`));
	const search = options.search?.trim();
	if (search !== undefined && search !== "") {
		const pattern = likePattern(search);
		query = query.where(
			(await isCommon(handle, pattern))
				? // The same, in words of which the planner expects many hits: it goes through them in order then.
					sql<boolean>`strpos(lower(${SEARCHED}), lower(${search})) > 0`
				: sql<boolean>`${SEARCHED} ilike ${pattern}`,
		);
	}
	if (options.base !== undefined) query = query.where("source_repo", "=", options.base);
	if (options.container !== undefined) query = query.where("container", "=", options.container);
	if (options.bits !== undefined) query = query.where("bits", "=", options.bits);
	const cursor = decodeCursor(options.cursor);
	const after = cursor === null ? null : afterCursor(sort, cursor);
	if (after !== null) query = query.where(after);
	switch (sort) {
		case "newest":
			query = query.orderBy("published_at", "desc").orderBy("id", "desc");
			break;
		case "kl":
			query = query.where("kl_mean", "is not", null).orderBy("kl_mean").orderBy("id");
			break;
		case "size":
			query = query.where("bytes", "is not", null).orderBy("bytes").orderBy("id");
			break;
	}
	const ids = (await query.limit(limit + 1).execute()).map((row) => row.id);
	if (ids.length === 0) return { items: [], next: null };
	const found = await handle
		.selectFrom("variants")
		.select(COLUMNS)
		.select(withoutLayers.as("manifest"))
		.select(isOlder.as("is_older"))
		.where("id", "in", ids)
		.execute();
	const place = new Map(ids.map((id, index) => [id, index] as const));
	const rows = found.toSorted((one, other) => (place.get(one.id) ?? 0) - (place.get(other.id) ?? 0));
	const shown = (row: (typeof rows)[number]): VariantRecord => ({ ...variantOfRow(row), isOlder: row.is_older });
	return pageOf(rows, limit, shown, (row) => {
		switch (sort) {
			case "newest":
				return [(row.published_at ?? row.created_at).toISOString(), row.id];
			case "kl":
				return [row.kl_mean ?? 0, row.id];
			case "size":
				return [Number(row.bytes ?? 0), row.id];
		}
	});
}

/** The newest measured variants, with what their manifests do not say: the source's size, how many the job made. */
export async function listMeasured(
	handle: Handle,
	limit: number,
): Promise<readonly { readonly manifest: Manifest; readonly parameters: number; readonly variants: number }[]> {
	const rows = await handle
		.selectFrom("variants")
		.innerJoin("jobs", "jobs.id", "variants.job_id")
		.select([
			"variants.manifest",
			sql<number | null>`(jobs.facts->>'parameters')::float8`.as("parameters"),
			sql<number>`(select count(*)::int from variants as other where other.job_id = jobs.id)`.as("count"),
		])
		.where("variants.state", "=", "published")
		.orderBy("variants.published_at", "desc")
		.limit(limit)
		.execute();
	return rows.flatMap(({ manifest, parameters, count }) =>
		manifest === null || parameters === null ? [] : [{ manifest: manifest as Manifest, parameters, variants: count }],
	);
}
