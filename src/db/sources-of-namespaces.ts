import { sql } from "kysely";
import type { JobState } from "../records/job.ts";
import { cursorTime, decodeCursor, type Page, pageLimit, pageOf } from "./cursor.ts";
import type { Handle } from "./database.ts";
import { type Audience, shownTo } from "./visibility.ts";

/** A source with what was made of it. */
export type KnownSource = {
	readonly repo: string;
	readonly private: boolean;
	/** That stand on the Hub now. */
	readonly variants: number;
	readonly lastJob: { readonly id: string; readonly state: JobState; readonly createdAt: string };
};

/** Sources in these namespaces that there ever was a job on, the one with the newest job first. */
export async function listSourcesOfNamespaces(
	handle: Handle,
	query: {
		readonly namespaces: readonly string[];
		readonly audience: Audience;
		readonly cursor: string | null;
		readonly limit: number;
	},
): Promise<Page<KnownSource>> {
	if (query.namespaces.length === 0) return { items: [], next: null };
	const limit = pageLimit(query.limit);
	const after = cursorTime(decodeCursor(query.cursor));
	const { rows } = await sql<{
		source_repo: string;
		id: string;
		state: JobState;
		created_at: Date;
		private: boolean;
		variants: number;
	}>`
		select latest.source_repo, latest.id, latest.state, latest.created_at,
			coalesce((select seen.private from source_visibility as seen where seen.repo = latest.source_repo), false) as private,
			(select count(*)::int from variants where variants.source_repo = latest.source_repo and variants.current) as variants
		from (
			select distinct on (jobs.source_repo) jobs.source_repo, jobs.id, jobs.state, jobs.created_at from jobs
			where jobs.namespace in (${sql.join(query.namespaces)}) and ${shownTo(query.audience, sql`jobs.source_repo`)}
			order by jobs.source_repo, jobs.created_at desc, jobs.id desc
		) as latest
		where ${after === null ? sql`true` : sql`(latest.created_at, latest.id) < (${after.at}, ${after.id}::uuid)`}
		order by latest.created_at desc, latest.id desc limit ${sql.lit(limit + 1)}`.execute(handle);
	return pageOf(
		rows,
		limit,
		(row) => ({
			repo: row.source_repo,
			private: row.private,
			variants: row.variants,
			lastJob: { id: row.id, state: row.state, createdAt: row.created_at.toISOString() },
		}),
		(row) => [row.created_at.toISOString(), row.id],
	);
}
