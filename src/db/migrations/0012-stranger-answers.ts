import type { Migration } from "./migration.ts";

export const strangerAnswers: Migration = {
	version: 12,
	name: "stranger answers",
	statements: [
		// Who was answered though they have no rights in the repo: their answers are counted over all threads.
		"create table stranger_answers (comment text primary key, person text not null, at timestamptz not null)",
		"create index stranger_answers_by_time on stranger_answers (at)",
	],
};
