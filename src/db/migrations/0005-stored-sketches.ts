import type { Migration } from "./migration.ts";

/** Sketches that go to a data set repo on the Hub, where runs on any machine find them. */
export const storedSketches: Migration = {
	version: 5,
	name: "stored sketches",
	statements: [
		"alter table sketches add column license text",
		// When it is to be uploaded; null when there is nothing to do.
		"alter table sketches add column store_at timestamptz",
		"alter table sketches add column store_failures integer not null default 0",
		"alter table sketches add column stored_repo text",
		"alter table sketches add column stored_revision text",
		"create index sketches_to_store on sketches (store_at) where store_at is not null",
	],
};
