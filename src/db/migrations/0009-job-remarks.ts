import type { Migration } from "./migration.ts";

export const jobRemarks: Migration = {
	version: 9,
	name: "job remarks",
	// What people should know of how the job came about, from then on to its end.
	statements: ["alter table jobs add column remark text"],
};
