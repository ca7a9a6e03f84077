import type { Migration } from "./migration.ts";

export const siteSessions: Migration = {
	version: 15,
	name: "site sessions",
	statements: [
		// Neither the session's id nor the Hub's token stands here: the one is hashed, the other sealed with it.
		`create table site_sessions (
			id_hash text primary key, subject text not null, person text not null, sealed_token text not null,
			signed_in_at timestamptz not null, expires_at timestamptz not null)`,
		"create index site_sessions_by_expiry on site_sessions (expires_at)",
		"create index jobs_by_namespace on jobs (namespace, source_repo, created_at desc)",
	],
};
