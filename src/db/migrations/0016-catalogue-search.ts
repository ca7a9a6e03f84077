import { fillMemory } from "../variants.ts";
import type { Migration } from "./migration.ts";

export const catalogueSearch: Migration = {
	version: 16,
	name: "catalogue search",
	statements: [
		// Spellings are compared with names alone: with all words of a thousand models that takes seconds.
		`alter table catalogue_models add column names text
			generated always as (catalogue_words(repo) || ' ' || lower(coalesce(family, ''))) stored`,
		"drop index catalogue_models_similar",
		"create index catalogue_models_similar on catalogue_models using gin (names gin_trgm_ops)",
		// What a run takes with the usual context; null where the model's shape is not known.
		"alter table variants add column memory_bytes bigint",
		"alter table catalogue_models add column least_memory bigint",
		"create index variants_without_memory on variants (id) where current and memory_bytes is null",
		// What has no hit, or hardly any, is found out without looking at every variant.
		`create index variants_search on variants
			using gin ((source_repo || ' ' || target_repo || ' ' || recipe) gin_trgm_ops) where current`,
		"create index variants_of_kind_newest on variants (container, bits, published_at desc, id desc) where current",
		"create index variants_of_kind_by_kl on variants (container, bits, kl_mean, id) where current",
		"create index variants_of_kind_by_bytes on variants (container, bits, bytes, id) where current",
		`create or replace function catalogue_least_memory() returns trigger language plpgsql as $$
		begin
			new.least_memory := (select min(memory_bytes) from variants where source_repo = new.repo and current);
			return new;
		end $$`,
		`create trigger catalogue_model_memory before insert or update on catalogue_models
			for each row execute function catalogue_least_memory()`,
	],
	fill: fillMemory,
};
