import type { Migration } from "./migration.ts";

export const jobFlavours: Migration = {
	version: 6,
	name: "job flavours",
	// The kind of machine that the estimate chose, as its runner names it.
	statements: ["alter table jobs add column flavour text"],
};
