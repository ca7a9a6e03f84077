import type { Migration } from "./migration.ts";

export const catalogueModels: Migration = {
	version: 13,
	name: "catalogue of models",
	statements: [
		"create extension if not exists pg_trgm",
		// One row a model that something is published of, kept by the triggers below: the catalogue never counts variants.
		`create table catalogue_models (
			repo text primary key,
			id uuid not null default gen_random_uuid(),
			variants integer not null,
			least_bytes bigint,
			most_bytes bigint,
			least_kl double precision,
			published_at timestamptz not null,
			containers text[] not null,
			bits integer[] not null,
			family text,
			parameters double precision,
			license text,
			words text not null,
			search tsvector generated always as (to_tsvector('simple', words)) stored
		)`,
		"create index catalogue_models_search on catalogue_models using gin (search)",
		"create index catalogue_models_similar on catalogue_models using gin (words gin_trgm_ops)",
		"create index catalogue_models_newest on catalogue_models (published_at desc, id desc)",
		"create index catalogue_models_by_kl on catalogue_models (least_kl, id)",
		"create index catalogue_models_by_size on catalogue_models (least_bytes, id)",
		// Letters and digits, apart and joined: "Model-77-7B" is found as "model 77", "model77" and "model777b".
		`create or replace function catalogue_words(given text) returns text immutable language sql as $$
			select lower(
				regexp_replace(given, '[^a-zA-Z0-9]+', ' ', 'g') || ' ' ||
				regexp_replace(regexp_replace(given, '([a-zA-Z])([0-9])', '\\1 \\2', 'g'), '[^a-zA-Z0-9]+', ' ', 'g') || ' ' ||
				regexp_replace(split_part(given, '/', 2), '[^a-zA-Z0-9]+', '', 'g'))
		$$`,
		`create or replace function refresh_catalogue_model(source text) returns void language plpgsql as $$
		declare facts jsonb;
		begin
			-- Two that publish at once would each count without the other. Few locks: one transaction may bring all models back.
			perform pg_advisory_xact_lock(7919, abs(hashtext(source)) % 64);
			if not exists (select 1 from variants where source_repo = source and current) then
				delete from catalogue_models where repo = source;
				return;
			end if;
			select jobs.facts into facts from jobs
				where jobs.source_repo = source and jobs.facts is not null order by jobs.created_at desc limit 1;
			insert into catalogue_models
				(repo, variants, least_bytes, most_bytes, least_kl, published_at, containers, bits, family, parameters, license, words)
			select source, count(*), min(bytes), max(bytes), min(kl_mean), max(coalesce(published_at, created_at)),
				array_agg(distinct container order by container),
				coalesce(array_agg(distinct bits order by bits) filter (where bits > 0), '{}'),
				regexp_replace(facts->>'architecture', '(ForCausalLM|LMHeadModel|ForConditionalGeneration)$', ''),
				(facts->>'parameters')::double precision,
				facts->>'license',
				left(catalogue_words(source) || ' ' || catalogue_words(coalesce(facts->>'architecture', '')) || ' ' ||
					catalogue_words(coalesce(facts->>'license', '')) || ' ' ||
					coalesce(string_agg(distinct catalogue_words(recipe || ' ' || target_repo), ' '), '') || ' ' ||
					coalesce(string_agg(distinct bits || 'bit int' || bits || ' bits', ' ') filter (where bits > 0), '') || ' ' ||
					string_agg(distinct case container
						when 'gguf' then 'llama cpp llamacpp ollama lmstudio'
						when 'onnx' then 'onnxruntime transformers js browser'
						when 'compressed-tensors' then 'vllm sglang'
						when 'gptq' then 'vllm gptqmodel'
						else container end, ' '), 100000)
			from variants where source_repo = source and current
			on conflict (repo) do update set variants = excluded.variants, least_bytes = excluded.least_bytes,
				most_bytes = excluded.most_bytes, least_kl = excluded.least_kl, published_at = excluded.published_at,
				containers = excluded.containers, bits = excluded.bits, family = excluded.family,
				parameters = excluded.parameters, license = excluded.license, words = excluded.words;
		end $$`,
		`create or replace function catalogue_model_changed() returns trigger language plpgsql as $$
		begin
			if tg_op <> 'INSERT' then perform refresh_catalogue_model(old.source_repo); end if;
			if tg_op = 'INSERT' then perform refresh_catalogue_model(new.source_repo); end if;
			return null;
		end $$`,
		`create trigger catalogue_model_update after update of current, kl_mean, bytes, target_repo on variants
			for each row when (old.current or new.current) execute function catalogue_model_changed()`,
		`create trigger catalogue_model_insert after insert on variants
			for each row when (new.current) execute function catalogue_model_changed()`,
		`create trigger catalogue_model_delete after delete on variants
			for each row when (old.current) execute function catalogue_model_changed()`,
		"select refresh_catalogue_model(source_repo) from (select distinct source_repo from variants where current) as known",
	],
};
