import type { Migration } from "./migration.ts";

export const runHints: Migration = {
	version: 4,
	name: "run hints",
	// When somebody last said that the run has news: what a replica remembers from before is too old then.
	statements: ["alter table jobs add column hint_at timestamptz"],
};
