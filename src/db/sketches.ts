import { sql } from "kysely";
import type { SketchIdentity } from "../records/sketch.ts";
import type { SourceContent } from "../records/source.ts";
import type { Handle } from "./database.ts";

export type SketchRow = SketchIdentity & {
	/** The runner's own fingerprint. */
	readonly key: string;
	/** On the machine that took it over; other replicas may lack it. */
	readonly directory: string;
	readonly license: string | null;
	/** Where the store has it. */
	readonly stored: { readonly repo: string; readonly revision: string } | null;
	readonly storeFailures: number;
};

const COLUMNS = [
	"source_repo",
	"source_sha",
	"fingerprint",
	"key",
	"directory",
	"license",
	"stored_repo",
	"stored_revision",
	"store_failures",
] as const;

type Row = {
	source_repo: string;
	source_sha: string;
	fingerprint: string;
	key: string;
	directory: string;
	license: string | null;
	stored_repo: string | null;
	stored_revision: string | null;
	store_failures: number;
};

function sketchOfRow(row: Row): SketchRow {
	return {
		repo: row.source_repo,
		sha: row.source_sha,
		fingerprint: row.fingerprint,
		key: row.key,
		directory: row.directory,
		license: row.license,
		stored:
			row.stored_repo === null || row.stored_revision === null
				? null
				: { repo: row.stored_repo, revision: row.stored_revision },
		storeFailures: row.store_failures,
	};
}

export async function findSketch(handle: Handle, wanted: SketchIdentity): Promise<SketchRow | null> {
	const row = await handle
		.selectFrom("sketches")
		.select(COLUMNS)
		.where("source_repo", "=", wanted.repo)
		.where("source_sha", "=", wanted.sha)
		.where("fingerprint", "=", wanted.fingerprint)
		.executeTakeFirst();
	return row === undefined ? null : sketchOfRow(row);
}

const MAXIMUM_CANDIDATES = 10;

/**
 * Sketches that a run on this commit may start from: its own, then those of other commits with the same weights, newest
 * first. `sameCompanions`: tokenizer and template are the same as well, so that it surely serves; else the run sees
 * whether its calibration tokens are.
 */
export async function listSketchesOfWeights(
	handle: Handle,
	wanted: SketchIdentity & { readonly content: SourceContent | null },
): Promise<readonly (SketchRow & { readonly sameCompanions: boolean })[]> {
	const { repo, sha, fingerprint, content } = wanted;
	const commitWith = (part: "weights" | "companions", value: string) => sql<boolean>`exists (select 1 from jobs
		where jobs.source_repo = sketches.source_repo and jobs.source_sha = sketches.source_sha
		and jobs.facts->'content'->>'weights' = ${content?.weights ?? ""}
		and jobs.facts->'content'->>${sql.lit(part)} = ${value})`;
	const isOwn = sql<boolean>`source_sha = ${sha}`;
	let query = handle
		.selectFrom("sketches")
		.select(COLUMNS)
		.select(sql<boolean>`(${isOwn} or ${commitWith("companions", content?.companions ?? "")})`.as("same_companions"))
		.where("source_repo", "=", repo)
		.where("fingerprint", "=", fingerprint);
	query =
		content === null ? query.where(isOwn) : query.where((eb) => eb.or([isOwn, commitWith("weights", content.weights)]));
	const rows = await query.orderBy(isOwn, "desc").orderBy("created_at", "desc").limit(MAXIMUM_CANDIDATES).execute();
	return rows.map((row) => ({ ...sketchOfRow(row), sameCompanions: row.same_companions }));
}

/** Keeps where a sketch is on this machine. `storeAt`: it goes to the store, unless the same one is there. */
export async function keepSketch(
	handle: Handle,
	sketch: SketchIdentity & {
		readonly key: string;
		readonly directory: string;
		readonly license: string | null;
		readonly storeAt: Date | null;
		readonly stored?: { readonly repo: string; readonly revision: string };
		readonly now: Date;
	},
): Promise<void> {
	const { repo, sha, fingerprint, key, directory, license, storeAt, stored, now } = sketch;
	const kept = { key, directory, license, created_at: now };
	const place = { stored_repo: stored?.repo ?? null, stored_revision: stored?.revision ?? null };
	await handle
		.insertInto("sketches")
		.values({ source_repo: repo, source_sha: sha, fingerprint, ...kept, ...place, store_at: storeAt })
		.onConflict((conflict) =>
			conflict.columns(["source_repo", "source_sha", "fingerprint"]).doUpdateSet((eb) => {
				const isSame = eb("sketches.key", "=", key);
				const isThere = eb.and([isSame, eb("sketches.stored_repo", "is not", null)]);
				return {
					...kept,
					store_failures: 0,
					stored_repo: eb.case().when(isSame).then(eb.ref("sketches.stored_repo")).else(place.stored_repo).end(),
					stored_revision: eb
						.case()
						.when(isSame)
						.then(eb.ref("sketches.stored_revision"))
						.else(place.stored_revision)
						.end(),
					store_at: eb.case().when(isThere).then(eb.ref("sketches.store_at")).else(storeAt).end(),
				};
			}),
		)
		.execute();
}

export async function listSketchesToStore(
	handle: Handle,
	now: Date,
	limit: number,
): Promise<readonly SketchIdentity[]> {
	const rows = await handle
		.selectFrom("sketches")
		.select(["source_repo", "source_sha", "fingerprint"])
		.where("store_at", "<=", now)
		.orderBy("store_at")
		.limit(limit)
		.execute();
	return rows.map((row) => ({ repo: row.source_repo, sha: row.source_sha, fingerprint: row.fingerprint }));
}

/** What became of an upload: it is in `stored`, or is tried again at `storeAt`, or (both `null`) given up. */
export async function settleStoredSketch(
	handle: Handle,
	sketch: SketchIdentity & {
		readonly key: string;
		readonly stored: { readonly repo: string; readonly revision: string } | null;
		readonly storeAt: Date | null;
		readonly failures: number;
	},
): Promise<void> {
	await handle
		.updateTable("sketches")
		.set({
			store_at: sketch.storeAt,
			store_failures: sketch.failures,
			...(sketch.stored === null ? {} : { stored_repo: sketch.stored.repo, stored_revision: sketch.stored.revision }),
		})
		.where("source_repo", "=", sketch.repo)
		.where("source_sha", "=", sketch.sha)
		.where("fingerprint", "=", sketch.fingerprint)
		.where("key", "=", sketch.key)
		.execute();
}
