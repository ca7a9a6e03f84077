import type { Migration } from "./migration.ts";

/** What runs elsewhere tell of themselves while nobody can read their output. */
export const pushedEvents: Migration = {
	version: 8,
	name: "pushed events",
	statements: [
		"create table signing_keys (name text primary key, key text not null, created_at timestamptz not null)",
		`create table pushed_events (
			job_id uuid not null references jobs (id) on delete cascade,
			fence integer not null,
			number integer not null,
			body jsonb not null,
			primary key (job_id, fence, number)
		)`,
	],
};
