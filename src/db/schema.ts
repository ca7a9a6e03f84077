import type { ColumnType, Generated } from "kysely";

/** Rows as stored. Columns of type jsonb are read as `unknown` and parsed where they leave `db/`. */
type Json = ColumnType<unknown, unknown, unknown>;
type Time = ColumnType<Date, Date, Date>;
type NullableTime = ColumnType<Date | null, Date | null, Date | null>;

export type DeliveriesTable = {
	id: string;
	source: string;
	dedupe_key: string;
	received_at: Time;
	outcome: string;
	detail: string | null;
	body: Json;
	attempts: Generated<number>;
	next_attempt_at: Time;
	lease_owner: string | null;
	lease_until: NullableTime;
};

export type RequestsTable = {
	id: string;
	kind: string;
	dedupe_key: string;
	source_repo: string;
	source_sha: string | null;
	recipes: Json;
	requester: string | null;
	reply_to: Json;
	job_id: string | null;
	refusal: Json;
	created_at: Time;
};

export type JobsTable = {
	id: string;
	source_repo: string;
	source_sha: string;
	state: string;
	fence: Generated<number>;
	runner: Generated<string>;
	runner_handle: string | null;
	/** `cancelled` or `superseded` when somebody wants it ended. */
	stop_as: string | null;
	refusal: Json;
	status_text: string;
	/** What people should know of how the job came about, from then on to its end. */
	remark: Generated<string | null>;
	facts: Json;
	/** Runs started since the last retry by a person. */
	run_attempts: Generated<number>;
	/** Failures in a row of the present step. */
	step_failures: Generated<number>;
	next_step_at: Time;
	lease_owner: string | null;
	lease_until: NullableTime;
	/** Number of the last runner event that was taken over from the present fence's run. */
	runner_events_seen: Generated<number>;
	event_count: Generated<number>;
	/** Grows with every change that the status discussion and the replies should show; `announced_version` follows. */
	announce_version: Generated<number>;
	announced_version: Generated<number>;
	/** A run, a staging repo or folders may be left over. */
	cleanup_due: Generated<boolean>;
	outbox_failures: Generated<number>;
	outbox_next_at: Time;
	outbox_lease_owner: string | null;
	outbox_lease_until: NullableTime;
	/** Of the source repo; the database computes it. */
	namespace: ColumnType<string, never, never>;
	/** People who wait come before pushes of the same namespace. */
	priority: Generated<number>;
	/** What the estimate chose, in words, and what it will cost. */
	plan_text: string | null;
	/** The kind of machine that it chose. */
	flavor: string | null;
	/** How long it said that the run takes. */
	planned_seconds: ColumnType<number | null, number | null | undefined, number | null>;
	estimate_micro_usd: ColumnType<string | number | null, number | null, number | null>;
	/** Whether an operator let it run although it costs more than may start by itself. */
	approved: Generated<boolean>;
	/** Out of line until then: a ceiling or a quota bars it. */
	held_until: NullableTime;
	/** When somebody last said that the run has news. */
	hint_at: NullableTime;
	created_at: Time;
	updated_at: Time;
	started_at: NullableTime;
	finished_at: NullableTime;
};

export type VariantsTable = {
	id: string;
	source_repo: string;
	source_sha: string;
	recipe: string;
	recipe_hash: string;
	job_id: string;
	state: string;
	target_repo: string;
	manifest: Json;
	target_sha: string | null;
	refusal: Json;
	/** Whether the target repo's head holds this variant: `false` once a newer commit's took its place. */
	current: Generated<boolean>;
	/** The variant of an earlier commit whose files this one takes over. */
	reused_from: Generated<string | null>;
	container: string;
	bits: number;
	kl_mean: number | null;
	bytes: ColumnType<string | number | null, number | null, number | null>;
	/** What a run takes with the usual context; `null`: not known. */
	memory_bytes: ColumnType<string | number | null, number | null | undefined, number | null>;
	created_at: Time;
	published_at: NullableTime;
};

export type JobEventsTable = {
	job_id: string;
	sequence: number;
	at: Time;
	kind: string;
	body: Json;
};

type SketchesTable = {
	source_repo: string;
	source_sha: string;
	fingerprint: string;
	key: string;
	/** On the machine that the run's files were taken over on. */
	directory: string;
	license: string | null;
	/** When it is to be uploaded to the store. */
	store_at: NullableTime;
	store_failures: Generated<number>;
	stored_repo: string | null;
	/** The commit of that repo that brought it. */
	stored_revision: string | null;
	created_at: Time;
};

type StatusDiscussionsTable = {
	source_repo: string;
	discussion: number | null;
	refused: Json;
	/** Two editors of one discussion would open it twice. */
	lease_owner: string | null;
	lease_until: NullableTime;
	updated_at: Time;
};

type PushedEventsTable = { job_id: string; fence: number; number: number; body: Json };
type SigningKeysTable = { name: string; key: string; created_at: Time };

/** Who alone may do something, for a while. */
type LeasesTable = { name: string; owner: string; held_until: Time };

type SourceVisibilityTable = { repo: string; private: boolean; gated: string; seen_at: Time };
/** `tightened`: less visible than it was published, since its source became so. */
type PublishedReposTable = { repo: string; source_repo: string; tightened: Generated<boolean> };

/** One row a model that something is published of; triggers on `variants` keep it. */
type CatalogueModelsTable = {
	repo: string;
	id: string;
	variants: number;
	least_bytes: string | number | null;
	most_bytes: string | number | null;
	least_kl: number | null;
	published_at: Time;
	containers: string[];
	bits: number[];
	family: string | null;
	parameters: number | null;
	license: string | null;
	words: string;
	/** Of the model alone, for spellings that no word has. */
	names: ColumnType<string, never, never>;
	/** The least that one of its files takes with the usual context. */
	least_memory: string | number | null;
};

type SweepSlotsTable = { slot: string; claimed_at: Time };
type KnownHeadsTable = { repo: string; sha: string; seen_at: Time };

type SiteSessionsTable = {
	id_hash: string;
	subject: string;
	person: string;
	sealed_token: string;
	signed_in_at: Time;
	expires_at: Time;
};

type StrangerAnswersTable = { comment: string; person: string; at: Time };

/** One row, none before anything was published. */
type CatalogueVersionTable = { single: boolean; changed_by: string };

export type Schema = {
	deliveries: DeliveriesTable;
	requests: RequestsTable;
	jobs: JobsTable;
	variants: VariantsTable;
	job_events: JobEventsTable;
	sketches: SketchesTable;
	status_discussions: StatusDiscussionsTable;
	leases: LeasesTable;
	sweep_slots: SweepSlotsTable;
	known_heads: KnownHeadsTable;
	pushed_events: PushedEventsTable;
	signing_keys: SigningKeysTable;
	source_visibility: SourceVisibilityTable;
	published_repos: PublishedReposTable;
	stranger_answers: StrangerAnswersTable;
	site_sessions: SiteSessionsTable;
	catalogue_models: CatalogueModelsTable;
	catalogue_version: CatalogueVersionTable;
};
