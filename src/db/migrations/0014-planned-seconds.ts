import type { Migration } from "./migration.ts";

export const plannedSeconds: Migration = {
	version: 14,
	name: "planned seconds",
	// How long the estimate says that the run takes; null where none was made.
	statements: ["alter table jobs add column planned_seconds double precision"],
};
