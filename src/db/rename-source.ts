import { sql } from "kysely";
import { TERMINAL_STATES } from "../records/job.ts";
import type { Handle } from "./database.ts";
import { lockSource } from "./jobs.ts";

/** `busy`: a job of it is under way, whose run and manifests speak of the former name. */
type Renaming = "renamed" | "busy";

/**
 * Lets the records of a source follow it to its new name, in a transaction. Where the new name has the same record
 * already, that one stands and the former stays where it is.
 */
export async function renameSource(
	tx: Handle,
	{ from, to }: { readonly from: string; readonly to: string },
): Promise<Renaming> {
	// Always in the same order: two that rename at once would wait for each other.
	for (const name of [from, to].toSorted()) await lockSource(tx, name);
	const live = await tx
		.selectFrom("jobs")
		.select("id")
		.where("source_repo", "=", from)
		.where("state", "not in", TERMINAL_STATES)
		.limit(1)
		.executeTakeFirst();
	if (live !== undefined) return "busy";
	await sql`update jobs set source_repo = ${to}, facts = case when facts is null then null
		else jsonb_set(facts, '{repo}', to_jsonb(${to}::text)) end where source_repo = ${from}`.execute(tx);
	await sql`update requests set source_repo = ${to} where source_repo = ${from}`.execute(tx);
	await sql`update variants set source_repo = ${to} where source_repo = ${from} and not exists (
		select 1 from variants as other where other.source_repo = ${to}
		and other.source_sha = variants.source_sha and other.recipe_hash = variants.recipe_hash)`.execute(tx);
	await sql`update sketches set source_repo = ${to} where source_repo = ${from} and not exists (
		select 1 from sketches as other where other.source_repo = ${to}
		and other.source_sha = sketches.source_sha and other.fingerprint = sketches.fingerprint)`.execute(tx);
	await sql`update published_repos set source_repo = ${to} where source_repo = ${from}`.execute(tx);
	await moveDiscussion(tx, { from, to });
	await sql`update known_heads set repo = ${to} where repo = ${from}
		and not exists (select 1 from known_heads as other where other.repo = ${to})`.execute(tx);
	await sql`delete from known_heads where repo = ${from}`.execute(tx);
	// The row of the former name stays: should anything be left under it, it is as hidden as it was.
	await sql`insert into source_visibility (repo, private, gated, seen_at)
		select ${to}, private, gated, seen_at from source_visibility where repo = ${from}
		on conflict (repo) do nothing`.execute(tx);
	await sql`select refresh_catalogue_model(name) from unnest(array[${from}, ${to}]::text[]) as name`.execute(tx);
	return "renamed";
}

/** The discussion went with the repo, under its number; one that the new name knows already is the same or a newer one. */
async function moveDiscussion(tx: Handle, { from, to }: { readonly from: string; readonly to: string }): Promise<void> {
	await sql`update status_discussions set discussion = former.discussion
		from status_discussions as former where former.source_repo = ${from}
		and status_discussions.source_repo = ${to} and status_discussions.discussion is null`.execute(tx);
	await sql`update status_discussions set source_repo = ${to} where source_repo = ${from}
		and not exists (select 1 from status_discussions as other where other.source_repo = ${to})`.execute(tx);
	await sql`delete from status_discussions where source_repo = ${from}`.execute(tx);
}
