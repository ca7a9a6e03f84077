import type { Migration } from "./migration.ts";

/** Who gets the next free runner, and what it may cost. */
export const admission: Migration = {
	version: 3,
	name: "admission",
	statements: [
		"alter table jobs add column namespace text generated always as (split_part(source_repo, '/', 1)) stored",
		"alter table jobs add column priority integer not null default 0",
		"alter table jobs add column plan_text text",
		"alter table jobs add column estimate_micro_usd bigint",
		"alter table jobs add column approved boolean not null default false",
		"alter table jobs add column held_until timestamptz",
		"create index jobs_in_line on jobs (namespace, created_at) where state in ('planned', 'waiting')",
		"create index jobs_by_start on jobs (started_at) where started_at is not null",
	],
};
