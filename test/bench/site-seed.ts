import { sql } from "kysely";
import type { Database, Handle } from "../../src/db/database.ts";
import { parseRecipe, recipeHash } from "../../src/protocol/recipe.ts";
import { RECIPE_NAMES } from "../../src/protocol/recipe-table.ts";
import { EIGHT_BILLION, makeEvents, makeManifest, NOW } from "../support/web-fixtures.ts";

/** Variants of each model: so many recipes, of so many commits; those of the newest stand on the Hub. */
const RECIPES = 25;
const COMMITS = 4;
const VARIANTS_A_MODEL = RECIPES * COMMITS;

export const BUSY_MODEL = "lab-1/Model-1-1B-Instruct";
const LIVE_JOB = "5e1f0000-0000-4000-8000-000000000001";
const LAYERS = 12;

function chosenRecipes(): readonly { canonical: string; hash: string; container: string; bits: number }[] {
	const names = RECIPE_NAMES.filter(({ bits }) => bits > 0);
	const step = names.length / RECIPES;
	return Array.from({ length: RECIPES }, (_, index) => names[Math.floor(index * step)]).flatMap((name) => {
		const parsed = parseRecipe(name?.name ?? "");
		if (!parsed.ok) return [];
		const { recipe } = parsed;
		return [
			{
				canonical: recipe.canonical,
				hash: recipeHash(recipe),
				container: recipe.name.container,
				bits: recipe.name.bits,
			},
		];
	});
}

const layer = (index: number) => ({
	name: `model.layers.${index}.self_attn.q_proj`,
	shape: [4096, 4096],
	type: "q4_k",
	proxyError: { twoSided: 0.31, oneSided: 0.62, rtn: 1 },
	effectiveRankOutput: 210.5,
	effectiveRankInput: 88.2,
	cosineSimilarity: null,
	sigmaInput: 0.02,
	sigmaOutput: 0.02,
});

async function untilDone(
	handle: Handle,
	count: number,
	batch: number,
	insert: (from: number, to: number) => Promise<unknown>,
) {
	for (let from = 1; from <= count; from += batch) await insert(from, Math.min(count, from + batch - 1));
	await sql`analyze`.execute(handle);
}

/**
 * Fills an empty database with so many variants of a hundredth as many models, with their jobs and deliveries, by SQL
 * alone: what the pages read, not how it came about. One job is under way, with events.
 */
export async function seedSite(database: Database, variants: number): Promise<void> {
	const { handle } = database;
	const models = Math.ceil(variants / VARIANTS_A_MODEL);
	const recipes = JSON.stringify(chosenRecipes());
	const manifest = JSON.stringify({
		...makeManifest({
			recipe: "gguf:q4_0",
			repo: BUSY_MODEL,
			sha: "a".repeat(40),
			kl: 0.02,
			bytes: 4e9,
			shape: EIGHT_BILLION,
		}),
		layers: Array.from({ length: LAYERS }, (_, index) => layer(index)),
	});
	await sql`alter table variants disable trigger user`.execute(handle);
	const repo = sql`'lab-' || (model % 50) || '/Model-' || model || '-' || (array['0.6B','1B','7B','8B','70B'])[1 + model % 5] || '-Instruct'`;
	const sha = sql`md5(model || ':' || source_commit) || '00000000'`;
	await untilDone(handle, models, 100, (from, to) =>
		sql`with made as (
			select ${repo} as repo, ${sha} as sha, model, source_commit
			from generate_series(${from}::int, ${to}::int) as model, generate_series(1, ${COMMITS}::int) as source_commit)
		insert into jobs (id, source_repo, source_sha, state, status_text, facts, fence, runner, next_step_at, outbox_next_at, created_at, updated_at, started_at, finished_at)
		select md5('job' || model || ':' || source_commit)::uuid, repo, sha, 'done', 'Published.',
			jsonb_build_object('architecture', (array['Llama','Qwen3','Gemma3','Mistral','Phi3','Glm','Rare'])[case when model = 1 then 7 else 1 + model % 6 end] || 'ForCausalLM',
				'parameters', (array[6e8,1e9,7e9,8e9,7e10])[1 + model % 5], 'license', (array['apache-2.0','mit','llama3.1'])[1 + model % 3]),
			1, 'local-1', ${NOW}::timestamptz, ${NOW}::timestamptz,
			${NOW}::timestamptz - make_interval(mins => model * ${COMMITS}::int + ${COMMITS}::int - source_commit),
			${NOW}::timestamptz, ${NOW}::timestamptz - interval '1 hour', ${NOW}::timestamptz
		from made`.execute(handle),
	);
	await untilDone(handle, models, 20, (from, to) =>
		sql`with made as (
			select ${repo} as repo, ${sha} as sha, model, source_commit, recipe,
				(0.5 * power(0.5, (recipe->>'bits')::int) * (1 + (model % 17) / 17.0)) as kl,
				((recipe->>'bits')::bigint * (array[6e8,1e9,7e9,8e9,7e10])[1 + model % 5] / 8 * 1.05)::bigint as bytes
			from generate_series(${from}::int, ${to}::int) as model, generate_series(1, ${COMMITS}::int) as source_commit,
				jsonb_array_elements(${recipes}::jsonb) as recipe)
		insert into variants (id, source_repo, source_sha, recipe, recipe_hash, job_id, state, target_repo, target_sha, manifest, current, container, bits, kl_mean, bytes, memory_bytes, created_at, published_at)
		select overlay(overlay(md5('variant' || model || ':' || source_commit || (recipe->>'hash')) placing '4' from 13 for 1) placing '8' from 17 for 1)::uuid, repo, sha, recipe->>'canonical', recipe->>'hash',
			md5('job' || model || ':' || source_commit)::uuid, 'published',
			'yaqa-bot/' || split_part(repo, '/', 2) || '-YAQA-' || upper(recipe->>'container'), sha,
			jsonb_set(jsonb_set(jsonb_set(${manifest}::jsonb, '{recipe}', recipe->'canonical'), '{evaluation,measured,0,report,klNats,mean}', to_jsonb(kl)), '{files,0,size}', to_jsonb(bytes)),
			source_commit = ${COMMITS}::int, recipe->>'container', (recipe->>'bits')::int, kl, bytes, bytes + 1500000000,
			${NOW}::timestamptz - make_interval(mins => model * ${COMMITS}::int + ${COMMITS}::int - source_commit),
			${NOW}::timestamptz - make_interval(mins => model * ${COMMITS}::int + ${COMMITS}::int - source_commit)
		from made`.execute(handle),
	);
	await sql`alter table variants enable trigger user`.execute(handle);
	await sql`select refresh_catalogue_model(repo) from (select distinct source_repo as repo from variants where current) as known`.execute(
		handle,
	);
	await sql`insert into known_heads (repo, sha, seen_at) select distinct on (source_repo) source_repo, source_sha, ${NOW}::timestamptz from variants where current`.execute(
		handle,
	);
	await sql`insert into source_visibility (repo, private, gated, seen_at)
		select repo, repo like 'lab-13/%', 'no', ${NOW}::timestamptz from known_heads`.execute(handle);
	await sql`insert into deliveries (id, source, dedupe_key, received_at, outcome, body, next_attempt_at)
		select md5('delivery' || number)::uuid, 'hub', 'key ' || number, ${NOW}::timestamptz - make_interval(secs => number), 'accepted',
			jsonb_build_object('event', jsonb_build_object('action', 'update', 'scope', 'repo.content'), 'repo', jsonb_build_object('type', 'model', 'name', 'lab-1/Model-' || number)), ${NOW}::timestamptz
		from generate_series(1, ${Math.ceil(variants / 10)}::int) as number`.execute(handle);
	const liveJob = LIVE_JOB;
	await sql`insert into jobs (id, source_repo, source_sha, state, status_text, fence, runner, next_step_at, outbox_next_at, created_at, updated_at, started_at)
		values (${liveJob}::uuid, ${BUSY_MODEL}, ${"f".repeat(40)}, 'running', 'The runner works on it.', 1, 'local-1', ${NOW}::timestamptz, ${NOW}::timestamptz, ${NOW}::timestamptz, ${NOW}::timestamptz, ${NOW}::timestamptz)`.execute(
		handle,
	);
	for (const event of makeEvents(liveJob)) {
		await sql`insert into job_events (job_id, sequence, at, kind, body)
			values (${liveJob}::uuid, ${event.sequence}, ${event.at}::timestamptz, ${event.kind}, ${JSON.stringify(event.body)}::jsonb)`.execute(
			handle,
		);
	}
	await sql`vacuum analyze`.execute(handle);
}

/** What the pages of single things are asked for. */
export async function seededThings({
	handle,
}: Database): Promise<{ readonly liveJob: string; readonly variant: string }> {
	const shown = await handle
		.selectFrom("variants")
		.select("id")
		.where("source_repo", "=", BUSY_MODEL)
		.where("current", "=", true)
		.where("container", "=", "gguf")
		.executeTakeFirstOrThrow();
	return { liveJob: LIVE_JOB, variant: shown.id };
}
