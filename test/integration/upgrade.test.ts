import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { sql } from "kysely";
import type { Database } from "../../src/db/database.ts";
import { listDeliveries } from "../../src/db/deliveries.ts";
import { dumpDatabase, restoreDatabase } from "../../src/db/dump.ts";
import { getJob, listDueJobs, listJobEvents, listJobs } from "../../src/db/jobs.ts";
import { MIGRATIONS, migrate } from "../../src/db/migrate.ts";
import { signingKey } from "../../src/db/pushed-events.ts";
import { listRequestsOfJob } from "../../src/db/requests.ts";
import { findSketch } from "../../src/db/sketches.ts";
import { getStatusDiscussion } from "../../src/db/status-discussions.ts";
import { getKnownHead } from "../../src/db/sweeps.ts";
import { getVariant, listPublishedVariants, listVariantsOfJob } from "../../src/db/variants.ts";
import { isShown, listPublishedRepos } from "../../src/db/visibility.ts";
import { usualMemory } from "../../src/fit/usual-memory.ts";
import { onEveryDatabase } from "../support/databases.ts";
import { readTinyManifest } from "../support/tiny-variants.ts";
import { EIGHT_BILLION } from "../support/web-fixtures.ts";

const NOW = new Date("2026-01-02T03:04:05.678Z");
const DONE = "11111111-1111-4111-8111-111111111111";
const OPEN = "22222222-2222-4222-8222-222222222222";
const FIRST = "33333333-3333-4333-8333-333333333333";
const SECOND = "44444444-4444-4444-8444-444444444444";
const SHA = "a".repeat(40);
const storedManifest = { ...(await readTinyManifest("w4a16")), shape: EIGHT_BILLION };
const manifest = JSON.stringify(storedManifest);
const memory = usualMemory(storedManifest);
assert.ok(memory !== null);
const facts = JSON.stringify({
	repo: "acme/model",
	sha: SHA,
	architecture: "LlamaForCausalLM",
	parameters: 1000,
	weightBytes: 4000,
	license: null,
	gated: false,
	private: true,
	tags: [],
});

type Values = Readonly<Record<string, unknown>>;

function job(id: string, state: string): Values {
	const finished = state === "done" ? NOW : null;
	const lines = { side_failures: 2, outbox_failures: 2, side_next_at: NOW, outbox_next_at: NOW };
	return {
		...{ id, state, source_repo: "acme/model", source_sha: SHA, fence: 3, runner: "local-1", runner_handle: `${id}-3` },
		...{ status_text: "„Running“ \n.", facts, run_attempts: 1, step_failures: 1, next_step_at: NOW },
		...{ runner_events_seen: 4, event_count: 2, announce_version: 5, announced_version: 4, cleanup_due: true },
		...lines,
		...{ created_at: NOW, updated_at: NOW, started_at: NOW, finished_at: finished },
		...{ priority: 1, plan_text: "A plan.", estimate_micro_usd: "9007199254740993", approved: true, hint_at: NOW },
		...{ flavour: "a10g-small", flavor: "a10g-small", remark: "A remark.", planned_seconds: 90.5 },
	};
}

function variant(id: string, sha: string, recipe: string, from: string | null): Values {
	return {
		...{ id, source_repo: "acme/model", source_sha: sha, recipe, recipe_hash: `hash of ${recipe}`, job_id: DONE },
		...{ state: "published", target_repo: "bot/model-YAQA-W4A16", manifest, target_sha: "b".repeat(40) },
		...{ current: true, container: "compressed-tensors", bits: 4, kl_mean: 0.1 + 0.2, bytes: "123456789012" },
		memory_bytes: memory,
		...{ created_at: NOW, published_at: NOW, carried_from: from, reused_from: from },
	};
}

/** A row or two of every table there ever was, by all names that its columns ever had. */
const ROWS: readonly (readonly [table: string, row: Values])[] = [
	["jobs", job(DONE, "done")],
	["jobs", job(OPEN, "running")],
	[
		"deliveries",
		{
			...{ id: FIRST, source: "hub", dedupe_key: "key", received_at: NOW, outcome: "pending", detail: "why" },
			...{ body: JSON.stringify({ repo: { name: "acme/model" } }), attempts: 2, next_attempt_at: NOW },
		},
	],
	[
		"requests",
		{
			...{ id: FIRST, kind: "comment", dedupe_key: "comment:1", source_repo: "acme/model", source_sha: SHA },
			...{ recipes: '["w4a16"]', requester: "ann", job_id: DONE, created_at: NOW },
			reply_to: '{"discussion":1,"commentId":"c","replyCommentId":"r"}',
		},
	],
	["variants", variant(FIRST, SHA, "w4a16", null)],
	["variants", variant(SECOND, "c".repeat(40), "w4a16", FIRST)],
	[
		"job_events",
		{ job_id: DONE, sequence: 1, at: NOW, kind: "state", body: '{"from":null,"to":"planned","statusText":""}' },
	],
	[
		"sketches",
		{
			...{ source_repo: "acme/model", source_sha: SHA, fingerprint: "f", key: "k", directory: "/data/sketches/k" },
			...{ created_at: NOW, license: "mit", stored_repo: "bot/sketches", stored_revision: SHA },
		},
	],
	["status_discussions", { source_repo: "acme/model", discussion: 7, updated_at: NOW }],
	["sweep_slots", { slot: "baseline:acme", claimed_at: NOW }],
	["known_heads", { repo: "acme/model", sha: SHA, seen_at: NOW }],
	["leases", { name: "a lease", owner: "somebody", held_until: NOW }],
	["signing_keys", { name: "progress", key: "secret", created_at: NOW }],
	["pushed_events", { job_id: OPEN, fence: 3, number: 1, body: "{}" }],
	["source_visibility", { repo: "acme/model", private: true, gated: "manual", seen_at: NOW }],
	["published_repos", { repo: "bot/model-YAQA-W4A16", source_repo: "acme/model", tightened: false }],
	["stranger_answers", { comment: "hub:acme/model:1:c", person: "ann", at: NOW }],
	[
		"site_sessions",
		{
			id_hash: "f".repeat(64),
			subject: "0".repeat(24),
			person: "ann",
			sealed_token: "sealed",
			signed_in_at: NOW,
			expires_at: NOW,
		},
	],
];

/** What the migrations and the triggers write. */
const NOT_FILLED: readonly string[] = ["schema_migrations", "catalogue_models", "catalogue_version"];

async function emptyAt(database: Database, version: number): Promise<void> {
	await sql`drop schema public cascade`.execute(database.handle);
	await sql`create schema public`.execute(database.handle);
	await migrate(
		database.handle,
		NOW,
		MIGRATIONS.filter((migration) => migration.version <= version),
	);
}

async function fill(database: Database): Promise<ReadonlyMap<string, number>> {
	const { rows } = await sql<{ table_name: string; column_name: string; data_type: string }>`
		select table_name, column_name, data_type from information_schema.columns
		where table_schema = 'public' and is_generated = 'NEVER'`.execute(database.handle);
	const columns = Map.groupBy(rows, (row) => row.table_name);
	const counts = new Map<string, number>();
	for (const [table, row] of ROWS) {
		const known = (columns.get(table) ?? []).filter((column) => row[column.column_name] !== undefined);
		if (known.length === 0) continue;
		const values = known.map(({ column_name: name, data_type: type }) =>
			type === "jsonb" ? sql`${row[name]}::text::jsonb` : sql`${row[name]}`,
		);
		await sql`insert into ${sql.table(table)} (${sql.join(known.map(({ column_name: name }) => sql.id(name)))})
			values (${sql.join(values)})`.execute(database.handle);
		counts.set(table, (counts.get(table) ?? 0) + 1);
	}
	const unfilled = [...columns.keys()].filter((table) => !NOT_FILLED.includes(table) && !counts.has(table));
	assert.deepEqual(unfilled, [], "every table has data");
	return counts;
}

/** What the newest program makes of the rows. */
async function assertUnderstood({ handle }: Database, counts: ReadonlyMap<string, number>): Promise<void> {
	for (const [table, count] of counts) {
		const { rows } = await sql<{ count: number }>`select count(*)::int as count from ${sql.table(table)}`.execute(
			handle,
		);
		assert.equal(rows[0]?.count, count, table);
	}
	const open = await getJob(handle, OPEN);
	assert.deepEqual(
		[open?.state, open?.fence, open?.statusText, open?.createdAt.getTime()],
		["running", 3, "„Running“ \n.", NOW.getTime()],
	);
	assert.equal((await listJobs(handle)).items.length, 2);
	assert.deepEqual(
		(await listDueJobs(handle, new Date(), 10)).map((one) => one.id),
		[OPEN],
	);
	assert.equal((await listJobEvents(handle, DONE, 0, 10)).length, 1);
	assert.equal((await listDeliveries(handle)).items[0]?.dedupeKey, "key");
	assert.equal((await listRequestsOfJob(handle, DONE))[0]?.replyTo?.replyCommentId, "r");
	assert.equal((await listVariantsOfJob(handle, DONE))[0]?.manifest?.recipe, "w4a16");
	assert.equal((await getVariant(handle, SECOND))?.state, "published");
	assert.equal((await listPublishedVariants(handle)).items.length, 2);
	const models = await sql<{ least_memory: string | number }>`
		select repo, variants, least_memory from catalogue_models`.execute(handle);
	assert.partialDeepStrictEqual(models.rows, [{ repo: "acme/model", variants: 2 }]);
	const { rows: memories } = await sql<{ memory_bytes: string | number | null }>`
		select memory_bytes from variants`.execute(handle);
	// The manifest says what its files weigh; nobody computed the memory before there was a column for it.
	for (const { memory_bytes: bytes } of memories) assert.equal(Number(bytes), memory);
	assert.equal(Number(models.rows[0]?.least_memory), memory);
	assert.equal((await findSketch(handle, { repo: "acme/model", sha: SHA, fingerprint: "f" }))?.key, "k");
	assert.equal((await getStatusDiscussion(handle, "acme/model")).discussion, 7);
	assert.equal(await getKnownHead(handle, "acme/model"), SHA);
	// What was private stays off public pages, and what was published follows its source, also where no table said so.
	assert.equal(await isShown(handle, "acme/model", "everybody"), false);
	assert.deepEqual(
		(await listPublishedRepos(handle, null)).map((one) => one.repo),
		["bot/model-YAQA-W4A16"],
	);
	const isOld = !counts.has("signing_keys");
	assert.equal(await signingKey(handle, "progress", "made anew", NOW), isOld ? "made anew" : "secret");
}

await onEveryDatabase((databases, name) => {
	describe(`a database of every version, on ${name}`, { concurrency: false }, () => {
		let database: Database;
		before(async () => {
			database = await (await databases()).open();
		});
		after(() => database.close());

		// Both kinds run the same statements: PostgreSQL is tried with the oldest and the newest.
		const tried =
			name === "PGlite" ? MIGRATIONS : [MIGRATIONS[0], MIGRATIONS.at(-1)].filter((one) => one !== undefined);
		for (const { version, name: change } of tried) {
			test(`${version} (${change}) is brought up to date with its data, and so is its backup`, async () => {
				await emptyAt(database, version);
				const counts = await fill(database);
				const lines: string[] = [];
				await dumpDatabase(database, { now: NOW, write: async (line) => void lines.push(line) });
				await migrate(database.handle, NOW);
				await assertUnderstood(database, counts);

				await emptyAt(database, version);
				await restoreDatabase(database, {
					now: NOW,
					lines: (async function* () {
						yield* lines;
					})(),
				});
				await assertUnderstood(database, counts);
			});
		}
	});
});
