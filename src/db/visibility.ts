import { type RawBuilder, sql } from "kysely";
import type { Handle } from "./database.ts";

/** Who looks: everybody, whoever runs the bot, or somebody who may read some private sources besides. */
export type Audience = "everybody" | "operator" | { readonly reads: readonly string[] };

/** Keeps what a look at a source showed. */
export async function setSourceVisibility(
	handle: Handle,
	source: { readonly repo: string; readonly private: boolean; readonly gated: string; readonly now: Date },
): Promise<void> {
	const row = { private: source.private, gated: source.gated, seen_at: source.now };
	await handle
		.insertInto("source_visibility")
		.values({ repo: source.repo, ...row })
		.onConflict((conflict) => conflict.column("repo").doUpdateSet(row))
		.execute();
}

/** Whether a source may be named to everybody. */
export async function isShown(handle: Handle, repo: string, audience: Audience): Promise<boolean> {
	if (audience === "operator" || (audience !== "everybody" && audience.reads.includes(repo))) return true;
	const row = await handle
		.selectFrom("source_visibility")
		.select("private")
		.where("repo", "=", repo)
		.executeTakeFirst();
	return row?.private !== true;
}

/** A condition on the source that `column` names. */
export function shownTo(audience: Audience, column: RawBuilder<unknown>): RawBuilder<boolean> {
	if (audience === "operator") return sql<boolean>`true`;
	const isPublic = sql<boolean>`not exists (select 1 from source_visibility as hidden where hidden.repo = ${column} and hidden.private)`;
	if (audience === "everybody" || audience.reads.length === 0) return isPublic;
	return sql<boolean>`(${column} in (${sql.join(audience.reads)}) or ${isPublic})`;
}

/** Sources in these namespaces that were private when they were last looked at. */
export async function listPrivateSources(
	handle: Handle,
	namespaces: readonly string[],
	limit: number,
): Promise<readonly string[]> {
	if (namespaces.length === 0) return [];
	const rows = await handle
		.selectFrom("source_visibility")
		.select("repo")
		.where("private", "=", true)
		.where(sql<boolean>`split_part(repo, '/', 1) in (${sql.join(namespaces)})`)
		.orderBy("seen_at", "desc")
		.limit(limit)
		.execute();
	return rows.map((row) => row.repo);
}

/** Sources that something is published of, with the repos that it stands in. */
export async function listPublishedRepos(
	handle: Handle,
	sourceRepo: string | null,
): Promise<readonly { readonly repo: string; readonly sourceRepo: string; readonly tightened: boolean }[]> {
	let query = handle.selectFrom("published_repos").selectAll();
	if (sourceRepo !== null) query = query.where("source_repo", "=", sourceRepo);
	const rows = await query.orderBy("source_repo").orderBy("repo").execute();
	return rows.map((row) => ({ repo: row.repo, sourceRepo: row.source_repo, tightened: row.tightened }));
}

export async function setTightened(handle: Handle, repo: string, tightened: boolean): Promise<void> {
	await handle.updateTable("published_repos").set({ tightened }).where("repo", "=", repo).execute();
}

/** Before anything is put there, so that no repo is ever published to that its source's visibility does not reach. */
export async function addPublishedRepo(
	handle: Handle,
	published: { readonly repo: string; readonly sourceRepo: string },
): Promise<void> {
	await handle
		.insertInto("published_repos")
		.values({ repo: published.repo, source_repo: published.sourceRepo })
		.onConflict((conflict) => conflict.column("repo").doNothing())
		.execute();
}
