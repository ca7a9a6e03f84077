import type { Migration } from "./migration.ts";

/** Variants whose files are those of an earlier commit with the same weights. */
export const carriedVariants: Migration = {
	version: 7,
	name: "carried variants",
	statements: [
		"alter table variants add column carried_from uuid references variants (id)",
		"create index variants_of_source on variants (source_repo, recipe_hash)",
	],
};
