import type { Migration } from "./migration.ts";

export const firstTables: Migration = {
	version: 1,
	name: "first tables",
	statements: [
		`create table deliveries (
			id uuid primary key,
			source text not null check (source in ('hub', 'github')),
			dedupe_key text not null,
			received_at timestamptz not null,
			outcome text not null check (outcome in ('pending', 'accepted', 'ignored', 'failed')),
			detail text,
			body jsonb not null,
			attempts integer not null default 0,
			next_attempt_at timestamptz not null,
			lease_owner text,
			lease_until timestamptz,
			unique (source, dedupe_key)
		)`,
		"create index deliveries_newest on deliveries (received_at desc, id desc)",
		"create index deliveries_pending on deliveries (next_attempt_at) where outcome = 'pending'",

		`create table jobs (
			id uuid primary key,
			source_repo text not null,
			source_sha text not null,
			state text not null check (state in ('planned', 'waiting', 'dispatching', 'running', 'ingesting', 'verifying',
				'publishing', 'announcing', 'done', 'failed', 'cancelled', 'superseded')),
			fence integer not null default 0,
			runner text not null default '',
			runner_handle text,
			stop_as text check (stop_as in ('cancelled', 'superseded')),
			refusal jsonb,
			status_text text not null,
			facts jsonb,
			run_attempts integer not null default 0,
			step_failures integer not null default 0,
			next_step_at timestamptz not null,
			lease_owner text,
			lease_until timestamptz,
			runner_events_seen integer not null default 0,
			event_count integer not null default 0,
			announce_version integer not null default 0,
			announced_version integer not null default 0,
			cleanup_due boolean not null default false,
			side_failures integer not null default 0,
			side_next_at timestamptz not null,
			side_lease_owner text,
			side_lease_until timestamptz,
			created_at timestamptz not null,
			updated_at timestamptz not null,
			started_at timestamptz,
			finished_at timestamptz
		)`,
		"create index jobs_newest on jobs (created_at desc, id desc)",
		"create index jobs_of_source on jobs (source_repo, created_at desc)",
		"create index jobs_by_state on jobs (state, created_at desc, id desc)",
		`create index jobs_unfinished on jobs (next_step_at)
			where state not in ('done', 'failed', 'cancelled', 'superseded')`,
		"create index jobs_side_work on jobs (side_next_at) where announce_version > announced_version or cleanup_due",

		`create table requests (
			id uuid primary key,
			kind text not null check (kind in ('push', 'comment', 'sweep', 'api', 'cli')),
			dedupe_key text not null unique,
			source_repo text not null,
			source_sha text,
			recipes jsonb not null,
			requester text,
			reply_to jsonb,
			job_id uuid references jobs (id),
			refusal jsonb,
			created_at timestamptz not null
		)`,
		"create index requests_of_job on requests (job_id)",

		`create table variants (
			id uuid primary key,
			source_repo text not null,
			source_sha text not null,
			recipe text not null,
			recipe_hash text not null,
			job_id uuid not null references jobs (id),
			state text not null check (state in ('wanted', 'staged', 'verified', 'published', 'failed')),
			target_repo text not null,
			manifest jsonb,
			target_sha text,
			refusal jsonb,
			current boolean not null default false,
			container text not null,
			bits integer not null,
			kl_mean double precision,
			bytes bigint,
			created_at timestamptz not null,
			published_at timestamptz,
			unique (source_repo, source_sha, recipe_hash)
		)`,
		"create index variants_of_job on variants (job_id)",
		"create index variants_of_target on variants (target_repo)",
		"create index variants_newest on variants (published_at desc, id desc) where current",
		"create index variants_by_kl on variants (kl_mean, id) where current",
		"create index variants_by_bytes on variants (bytes, id) where current",

		`create table job_events (
			job_id uuid not null references jobs (id) on delete cascade,
			sequence integer not null,
			at timestamptz not null,
			kind text not null check (kind in ('state', 'runner')),
			body jsonb not null,
			primary key (job_id, sequence)
		)`,

		`create table sketches (
			source_repo text not null,
			source_sha text not null,
			fingerprint text not null,
			key text not null,
			directory text not null,
			created_at timestamptz not null,
			primary key (source_repo, source_sha, fingerprint)
		)`,

		`create table status_discussions (
			source_repo text primary key,
			discussion integer,
			refused jsonb,
			lease_owner text,
			lease_until timestamptz,
			updated_at timestamptz not null
		)`,

		"create table sweep_slots (slot text primary key, claimed_at timestamptz not null)",
		"create table known_heads (repo text primary key, sha text not null, seen_at timestamptz not null)",
	],
};
