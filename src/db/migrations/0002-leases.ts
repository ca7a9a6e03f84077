import type { Migration } from "./migration.ts";

export const leases: Migration = {
	version: 2,
	name: "leases",
	statements: [
		"create table leases (name text primary key, owner text not null, held_until timestamptz not null)",
		"create index requests_by_time on requests (created_at) where kind = 'comment'",
	],
};
