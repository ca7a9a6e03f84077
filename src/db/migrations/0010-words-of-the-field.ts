import type { Migration } from "./migration.ts";

/** Columns get the words that the program uses. */
export const wordsOfTheField: Migration = {
	version: 10,
	name: "words of the field",
	statements: [
		"alter table jobs rename column side_failures to outbox_failures",
		"alter table jobs rename column side_next_at to outbox_next_at",
		"alter table jobs rename column side_lease_owner to outbox_lease_owner",
		"alter table jobs rename column side_lease_until to outbox_lease_until",
		"alter index jobs_side_work rename to jobs_outbox",
		"alter table jobs rename column flavour to flavor",
		"alter table variants rename column carried_from to reused_from",
	],
};
