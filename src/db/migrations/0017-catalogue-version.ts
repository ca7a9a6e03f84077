import type { Migration } from "./migration.ts";

const CHANGES = [
	["catalogue_models", "insert or update or delete", "true"],
	// Most looks at a source find it as it was.
	["source_visibility", "insert", "new.private"],
	["source_visibility", "update", "old.private is distinct from new.private"],
	["source_visibility", "delete", "old.private"],
	// A list of variants says which of them are of an older commit.
	["known_heads", "insert or delete", "true"],
	["known_heads", "update", "old.* is distinct from new.*"],
] as const;

export const catalogueVersion: Migration = {
	version: 17,
	name: "catalogue version",
	statements: [
		// The transaction that last changed what the public lists show: pages are kept for as long as it stands.
		`create table catalogue_version (
			single boolean primary key default true check (single), changed_by xid8 not null
		)`,
		`create or replace function catalogue_changed() returns trigger language plpgsql as $$
		begin
			insert into catalogue_version (changed_by) values (pg_current_xact_id())
				on conflict (single) do update set changed_by = excluded.changed_by
				where catalogue_version.changed_by <> excluded.changed_by;
			return null;
		end $$`,
		// At the transaction's end, as its last lock: taken earlier, two that publish at once could wait for each other.
		...CHANGES.map(
			([table, change, when], index) =>
				`create constraint trigger catalogue_changed_${index + 1} after ${change} on ${table}
				deferrable initially deferred for each row when (${when}) execute function catalogue_changed()`,
		),
		// The operator uses the index on names, the function of the same meaning does not; its threshold is a setting.
		`create or replace function models_named_like(given text) returns setof text language sql stable
			set pg_trgm.word_similarity_threshold = 0.45 as $$
			select repo from catalogue_models where given <% names
		$$`,
	],
};
