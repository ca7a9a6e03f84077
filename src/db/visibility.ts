import { type RawBuilder, sql } from "kysely";
import type { Handle } from "./database.ts";

/** Who looks: everybody, or whoever runs the bot. */
export type Audience = "everybody" | "operator";

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
	if (audience === "operator") return true;
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
	return sql<boolean>`not exists (select 1 from source_visibility as hidden where hidden.repo = ${column} and hidden.private)`;
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
