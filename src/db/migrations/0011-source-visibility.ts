import type { Migration } from "./migration.ts";

export const sourceVisibility: Migration = {
	version: 11,
	name: "source visibility",
	statements: [
		// Pages that everybody sees leave out what is private; nothing is known of a source before it was looked at.
		`create table source_visibility (
			repo text primary key, private boolean not null, gated text not null, seen_at timestamptz not null
		)`,
		`insert into source_visibility (repo, private, gated, seen_at)
			select distinct on (source_repo) source_repo, coalesce((facts->>'private')::boolean, true), 'unknown', updated_at
			from jobs where facts is not null order by source_repo, created_at desc`,
		// Every repo that was ever published to, for as long as it may stand: they follow their source's visibility.
		`create table published_repos (
			repo text primary key, source_repo text not null, tightened boolean not null default false
		)`,
		"insert into published_repos (repo, source_repo) select distinct on (target_repo) target_repo, source_repo from variants where state = 'published'",
		"create index published_repos_by_source on published_repos (source_repo)",
	],
};
