import type { Refusal } from "../errors.ts";
import type { StoredSketch } from "../protocol/job-spec.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { Recipe } from "../protocol/recipe.ts";
import type { JobRecord } from "../records/job.ts";
import type { RequestRecord } from "../records/request.ts";
import type { SketchIdentity } from "../records/sketch.ts";
import type { Inspection, OwnerSettings, WatchedHead } from "../records/source.ts";
import type { VariantFiles, VariantRecord } from "../records/variant.ts";

/**
 * What the steps of a job need from the outside, as plain functions.
 *
 * Each may be called again with the same arguments after a crash at any moment and must then find what it did before.
 * Expected outcomes are values; `RetryableError` is thrown for a fault that a later attempt may get past,
 * `PermanentError` for one that none does. Any other exception counts as a bug and is retried a few times.
 */

/**
 * Reads the repo by ranges and decides whether it can be quantized. `revision`: a branch, a tag or a commit that one of
 * them holds; `baseSha`: of an adapter, its base's commit where it was settled before.
 */
type SourceInspector = (request: {
	readonly repo: string;
	readonly revision: string;
	readonly baseSha?: string | null;
}) => Promise<Inspection>;

/**
 * Fills `directory` with the snapshot of a commit, and of an adapter's base its folder, using the read token. Files that
 * are there whole already are kept.
 */
type SourceFetcher = (request: {
	readonly repo: string;
	readonly sha: string;
	readonly directory: string;
	readonly base?: { readonly sha: string; readonly directory: string } | null;
	readonly signal: AbortSignal;
}) => Promise<{ readonly ok: true } | { readonly ok: false; readonly refusal: Refusal }>;

/**
 * The repo that a recipe of a source is published to, `namespace/name`. `commit`: one that is not the newest of the
 * source's main branch and whose variants therefore get a repo of their own.
 */
type TargetNamer = (request: {
	readonly sourceRepo: string;
	readonly recipe: Recipe;
	readonly commit: string | null;
}) => string;

/** Uploads every variant of a job, and its verification tensors, to a private place on the Hub. */
type Stager = (request: {
	readonly job: JobRecord;
	readonly variants: readonly VariantFiles[];
	/** A safetensors file on this machine. */
	readonly verificationPath: string;
}) => Promise<{ readonly ok: true; readonly stagingRepo: string } | { readonly ok: false; readonly refusal: Refusal }>;

/**
 * Downloads what `Stager` uploaded into `directory`, laid out as `DIRECTORY/<recipeDirectory(variant.recipe)>/…`
 * and `DIRECTORY/verification.safetensors`.
 */
type StagedFetcher = (request: {
	readonly job: JobRecord;
	readonly variants: readonly VariantRecord[];
	readonly directory: string;
}) => Promise<{ readonly ok: true } | { readonly ok: false; readonly refusal: Refusal }>;

/** Removes a job's staging place; nothing to remove is fine. */
type StagingRemover = (request: { readonly job: JobRecord }) => Promise<void>;

/** `checks`: one line for every check that was made, for the job page. */
type Verification =
	| {
			readonly ok: true;
			/** With what the engine measured. */
			readonly manifest: Manifest;
			readonly checks: readonly string[];
	  }
	| { readonly ok: false; readonly refusal: Refusal; readonly checks: readonly string[] };

/** Checks one variant's files, as downloaded from staging, against its manifest. */
type Verifier = (request: {
	readonly directory: string;
	readonly manifest: Manifest;
	readonly recipe: Recipe;
	/** The safetensors file with the reference log-probabilities, or `null` when it is not at hand. */
	readonly verificationPath: string | null;
	readonly signal: AbortSignal;
}) => Promise<Verification>;

type Publication =
	| { readonly ok: true; readonly targetRepo: string; readonly targetSha: string; readonly url: string }
	| { readonly ok: false; readonly refusal: Refusal };

/**
 * Publishes the variants of one job that share a target repo, in one commit, then makes the repo visible.
 * A finished earlier attempt is found by the manifests in the repo's head.
 */
type Publisher = (request: {
	readonly job: JobRecord;
	readonly targetRepo: string;
	readonly variants: readonly VariantFiles[];
	/** Every other published variant of the same source repo (any commit), for the card: table, plot, links. */
	readonly siblings: readonly VariantRecord[];
	/** The newest commit of the source, by which older variants are marked; `null`: not known. */
	readonly newestSha: string | null;
}) => Promise<Publication>;

/** What is left of a model when only tokenizer, template, settings or card changed: its variants with the new ones. */
type Republication =
	| {
			readonly kind: "published";
			readonly targetSha: string;
			/** By variant: what stands beside the files now. */
			readonly manifests: ReadonlyMap<string, Manifest>;
	  }
	/** The published files are not there any more, so that there is nothing to take over; `reason` says what is missing. */
	| { readonly kind: "vanished"; readonly reason: string }
	| { readonly kind: "refused"; readonly refusal: Refusal };

/**
 * Brings published variants with unchanged weights to a newer commit of their source, in one commit: new tokenizer,
 * template and settings where they lie beside the weights, a manifest and a card that name the commit. `origin`: the
 * variant of the earlier commit. What was done before is found by the manifests in the repo's head.
 */
type Republisher = (request: {
	readonly job: JobRecord;
	readonly targetRepo: string;
	readonly variants: readonly { readonly variant: VariantRecord; readonly origin: VariantRecord }[];
	readonly siblings: readonly VariantRecord[];
}) => Promise<Republication>;

/** Writes the card of a repo anew where its variants are no longer of the newest commit. */
type CardRefresher = (request: {
	readonly targetRepo: string;
	readonly sourceRepo: string;
	/** The commit that the source's main branch points at; `null`: not known. */
	readonly newestSha: string | null;
	readonly siblings: readonly VariantRecord[];
}) => Promise<void>;

/** Everything that the status discussion of a source repo shows. */
type SourceStatus = {
	readonly sourceRepo: string;
	/** The discussion that an earlier call returned. */
	readonly discussion: number | null;
	/** Newest first, at most 20. */
	readonly jobs: readonly JobRecord[];
	/** The variants of these jobs and every published one. */
	readonly variants: readonly VariantRecord[];
	/** The newest refusal of the source itself when no job came of it: with the commit looked at. */
	readonly refused: { readonly sha: string | null; readonly refusal: Refusal } | null;
};

/** Opens the one status discussion of a source repo, or edits it. `null`: discussions are closed there. */
type Announcer = (status: SourceStatus) => Promise<{ readonly discussion: number | null }>;

/** Brings the bot's answer to one request up to date: posts it the first time, edits it later. */
export type Replier = (request: {
	readonly request: RequestRecord;
	readonly job: JobRecord | null;
	readonly variants: readonly VariantRecord[];
}) => Promise<{ readonly replyCommentId: string | null }>;

type OwnerSettingsReader = (request: {
	readonly repo: string;
	readonly sha: string;
	/** The bot's status discussion, where there is one. */
	readonly discussion: number | null;
}) => Promise<OwnerSettings>;

/** A data set repo on the Hub that keeps sketches for later jobs on any machine. */
export type SketchStore = {
	find(identity: SketchIdentity): Promise<StoredSketch | null>;
	/** Where a sketch is that `keep` put there with that commit. */
	placeOf(identity: SketchIdentity, revision: string): StoredSketch;
	bring(request: {
		readonly stored: StoredSketch;
		readonly directory: string;
		readonly signal: AbortSignal;
	}): Promise<{ readonly key: string }>;
	keep(request: {
		readonly identity: SketchIdentity;
		readonly key: string;
		readonly license: string | null;
		readonly directory: string;
	}): Promise<StoredSketch>;
};

/** The models of a namespace, or one repo, with the commit their main branch points at. */
type HeadLister = (
	request:
		| { readonly kind: "namespace"; readonly namespace: string }
		| { readonly kind: "repo"; readonly repo: string },
) => AsyncIterable<WatchedHead>;

/**
 * Gives published repos the visibility and gating of their source as it is now, tighter at once and looser only where
 * they were tightened for its sake; answers both, and the name that the source has now.
 */
type VisibilityFollower = (request: {
	readonly sourceRepo: string;
	/** Of an adapter: those that its published files were merged onto. */
	readonly bases: readonly string[];
	readonly repos: readonly { readonly repo: string; readonly tightened: boolean }[];
}) => Promise<{
	/** What the source is called now. */
	readonly name: string;
	readonly private: boolean;
	readonly gated: false | "auto" | "manual";
	readonly repos: readonly { readonly repo: string; readonly tightened: boolean }[];
}>;

/** Everything of the outside that the engine is built with. */
export type Ports = {
	readonly inspectSource: SourceInspector;
	readonly fetchSource: SourceFetcher;
	readonly nameTarget: TargetNamer;
	readonly stage: Stager;
	readonly fetchStaged: StagedFetcher;
	readonly removeStaging: StagingRemover;
	readonly verify: Verifier;
	readonly publish: Publisher;
	readonly republish: Republisher;
	readonly refreshCard: CardRefresher;
	readonly followVisibility: VisibilityFollower;
	readonly announce: Announcer;
	readonly reply: Replier;
	readonly listHeads: HeadLister;
	readonly readOwnerSettings: OwnerSettingsReader;
	/** `null` or absent: sketches stay on the machine that has them. */
	readonly sketchStore?: SketchStore | null;
};

/** What somebody wants: the input of `recordRequest`. */
export type RequestInput = {
	readonly kind: RequestRecord["kind"];
	readonly sourceRepo: string;
	/** A branch or commit; the head of main when absent. */
	readonly revision?: string;
	/** Recipes as parsed; empty for the watch rule's own. */
	readonly recipes: readonly Recipe[];
	readonly requester: string | null;
	readonly replyTo: RequestRecord["replyTo"];
	/** Two calls with the same key are one request (a delivery id, a comment id). */
	readonly dedupeKey: string;
};

export type RequestOutcome =
	/** A job that was made or joined for it. */
	| {
			readonly kind: "planned";
			readonly request: RequestRecord;
			readonly job: JobRecord;
			readonly variants: readonly VariantRecord[];
			readonly created: boolean;
	  }
	/** Everything asked for is published already. */
	| { readonly kind: "published"; readonly request: RequestRecord; readonly variants: readonly VariantRecord[] }
	| { readonly kind: "refused"; readonly request: RequestRecord; readonly refusal: Refusal };

/** Records why we act and makes sure that exactly one job does it. */
export type RecordRequest = (input: RequestInput) => Promise<RequestOutcome>;
