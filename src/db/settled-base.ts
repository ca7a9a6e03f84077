import { sql } from "kysely";
import type { SourceBase } from "../records/source.ts";
import type { Handle } from "./database.ts";

/**
 * The base that an adapter's commit was first looked at with: what was made or is under way of it is of that commit of
 * the base, whatever was pushed there since. `null`: it is no adapter, or nothing was made of it.
 */
export async function findSettledBase(
	handle: Handle,
	source: { readonly repo: string; readonly sha: string },
): Promise<SourceBase | null> {
	const { rows } = await sql<{ repo: string; sha: string }>`
		select facts->'base'->>'repo' as repo, facts->'base'->>'sha' as sha, 1 as rank, created_at from jobs
		where source_repo = ${source.repo} and source_sha = ${source.sha} and facts->'base'->>'sha' is not null
		union all
		select manifest->'source'->'base'->>'repo', manifest->'source'->'base'->>'revision', 2, created_at from variants
		where source_repo = ${source.repo} and source_sha = ${source.sha}
			and manifest->'source'->'base'->>'revision' is not null
		order by rank, created_at limit 1`.execute(handle);
	const [row] = rows;
	return row === undefined ? null : { repo: row.repo, sha: row.sha };
}

/** The bases that the files of a source that can be had now were merged onto. */
export async function listBases(handle: Handle, sourceRepo: string): Promise<readonly string[]> {
	const { rows } = await sql<{ base: string }>`
		select distinct manifest->'source'->'base'->>'repo' as base from variants
		where source_repo = ${sourceRepo} and state = 'published' and current
			and manifest->'source'->'base'->>'repo' is not null`.execute(handle);
	return rows.map(({ base }) => base);
}

/** The sources that something is published of which was merged onto a base. */
export async function listAdaptersOf(handle: Handle, baseRepo: string): Promise<readonly string[]> {
	const { rows } = await sql<{ repo: string }>`
		select distinct source_repo as repo from variants
		where manifest->'source'->'base'->>'repo' = ${baseRepo}`.execute(handle);
	return rows.map(({ repo }) => repo);
}
