import { z } from "zod";
import { CACHE_TYPES } from "../fit/memory.ts";
import { StageName } from "../protocol/events.ts";
import { Estimate, Quantizer } from "../protocol/manifest.ts";
import { Container } from "../protocol/recipe-table.ts";
import { JOB_STATES } from "../records/job.ts";

/** What the JSON twins of the pages hold, for `/openapi.json`; a test holds real answers against it. */

const time = z.iso.datetime();
const count = z.int().min(0);
const bytes = z.int().min(0);
const commit = z.string().describe("A commit's full id.");
const nextCursor = z.string().nullable().describe("Pass it as `cursor` for the next page; null on the last one.");

const Refusal = z.object({
	code: z.string().describe("A fixed word, such as `too-large`."),
	message: z.string(),
	remedy: z.string().describe("What to do about it, and who can."),
});

const Model = z.object({
	repo: z.string(),
	variants: count,
	leastBytes: bytes.nullable(),
	mostBytes: bytes.nullable(),
	leastKlNats: z.number().nullable(),
	publishedAt: z.string(),
	containers: z.array(z.string()),
	bits: z.array(z.number()),
	family: z.string().nullable(),
	parameters: z.number().nullable(),
	license: z.string().nullable(),
	leastMemory: bytes.nullable().describe("The least that one of its files takes with a context of 8k."),
});

const facet = z.array(z.object({ value: z.string(), count }));

const Variant = z.object({
	id: z.uuid(),
	source: z.object({ repo: z.string(), sha: commit }),
	recipe: z.string(),
	container: Container.nullable(),
	bits: z.number().nullable(),
	state: z.enum(["wanted", "staged", "verified", "published", "failed"]),
	cancelled: z.boolean().describe("It failed because its job was cancelled or superseded."),
	repo: z.string().describe("Where it is published, or will be."),
	url: z.string(),
	jobId: z.uuid(),
	bytes: bytes.nullable(),
	klNats: Estimate.nullable().describe("KL(original ‖ quantized), nats a token, on the report texts."),
	baselines: z
		.object({ gptq: Estimate.nullable(), rtn: Estimate.nullable() })
		.describe("The same of GPTQ and round to nearest, at equal bytes."),
	topOneAgreement: z.number().min(0).max(1).nullable(),
	perplexityRatio: z.number().nullable(),
	quantizer: Quantizer.nullable(),
	publishedAt: time.nullable(),
	ofOlderCommit: z.boolean().nullable().describe("Whether the source has a newer commit; null: not looked up."),
});

const Job = z.object({
	id: z.uuid(),
	sourceRepo: z.string(),
	sourceSha: commit,
	state: z.enum(JOB_STATES),
	fence: count.describe("The attempt."),
	runner: z.string(),
	cancelRequested: z.boolean(),
	refusal: Refusal.nullable(),
	statusText: z.string(),
	remark: z.string().nullable().optional(),
	planText: z.string().nullable().optional(),
	plannedSeconds: z.number().nullable().optional(),
	heldUntil: time.nullable().optional().describe("Until then something keeps it out of the line for a runner."),
	createdAt: time,
	updatedAt: time,
	startedAt: time.nullable(),
	finishedAt: time.nullable(),
});

const Progress = z.object({
	lastSequence: count.describe("The number of the last event; `Last-Event-ID` of the stream."),
	attempt: count.nullable(),
	attemptAt: time.nullable(),
	states: z.array(z.object({ state: z.string(), at: time, statusText: z.string() })),
	notes: z.array(z.string()),
	stages: z.array(
		z.object({
			stage: StageName,
			status: z.enum(["pending", "started", "finished", "skipped"]),
			seconds: z.number().nullable(),
			done: z.number().nullable(),
			total: z.number().nullable(),
			unit: z.string(),
			etaSeconds: z.number().nullable(),
			detail: z.string().nullable(),
		}),
	),
	layers: z.array(
		z.object({
			name: z.string(),
			recipe: z.string(),
			twoSided: z.number().nullable(),
			oneSided: z.number().nullable(),
		}),
	),
	layerCount: count,
	metrics: z.array(z.object({ recipe: z.string(), quantizer: Quantizer, klNats: Estimate })),
	warnings: z.array(z.object({ code: z.string(), message: z.string() })),
});

const QueuePlace = z.object({
	ahead: count,
	front: z.object({ id: z.uuid(), sourceRepo: z.string(), isRunning: z.boolean() }).nullable(),
});

const Fit = z.object({
	memory: bytes.nullable(),
	machine: z.string().nullable(),
	context: count,
	cache: z.enum(CACHE_TYPES),
	recommended: z.string().nullable().describe("The recipe of the file to take."),
	reason: z.string().nullable(),
	message: z.string().nullable().describe("What of the question was not understood."),
	rows: z.array(
		z.object({
			recipe: z.string(),
			repo: z.string(),
			file: z.string().nullable(),
			memory: z.object({
				weights: z.number(),
				cache: z.number(),
				states: z.number(),
				compute: z.number(),
				total: z.number(),
			}),
			cacheIsKnown: z.boolean(),
			measured: z.boolean(),
			fits: z.boolean().nullable(),
			longestContext: z.number().nullable(),
			klNats: Estimate.nullable(),
		}),
	),
});

const Command = z.object({
	name: z.string(),
	aliases: z.array(z.string()),
	usage: z.string(),
	summary: z.string(),
	whoCanUse: z.string(),
	examples: z.array(z.object({ text: z.string(), meaning: z.string() })),
});

const Delivery = z.object({
	id: z.uuid(),
	receivedAt: time,
	outcome: z.enum(["pending", "accepted", "ignored", "failed"]),
	detail: z.string().nullable(),
	event: z.string(),
	repo: z.string().nullable(),
});

const Readiness = z.object({
	ready: z.boolean(),
	checks: z.array(z.object({ name: z.string(), ok: z.boolean(), detail: z.string() })),
});

const About = z.object({
	operator: z.string().nullable(),
	contact: z.string().nullable(),
	source: z.string().nullable(),
	account: z.string(),
	namespace: z.string(),
	calibration: z.object({ kind: z.enum(["self", "text"]), sequences: count, length: count }),
	evaluation: z.object({ texts: z.array(z.string()), sequences: count, length: count }),
	floor: z.array(
		z.object({ bitsPerWeight: z.number(), maximumKlNats: z.number(), minimumTopOneAgreement: z.number() }),
	),
	unmeasured: z.enum(["refuse", "allow"]),
	runner: z.enum(["local", "hf-jobs", "github-actions"]),
	isolation: z.enum(["auto", "required"]),
	signed: z.boolean().describe("Whether manifests carry this bot's signature."),
});

const dollars = z.number().nullable();
const counts = z.record(z.string(), count).describe("How many of each state.");

/** What the page /operator shows. */
const Operator = z.object({
	queue: z.object({
		jobs: counts,
		variants: counts,
		deliveries: counts,
		oldestDueSeconds: z.number(),
		line: z.array(z.object({ id: z.uuid(), sourceRepo: z.string(), position: count })),
	}),
	budget: z.object({
		spentThisMonthUsd: z.number().describe("By estimate; every attempt counts."),
		perMonthUsd: dollars,
		perJobUsd: dollars,
		approvalUsd: dollars,
		runsPerNamespacePerDay: z.number().nullable(),
	}),
	kept: z
		.record(z.string(), z.object({ entries: count, bytes: bytes.optional(), removed: count }))
		.nullable()
		.describe("By the last look over it; null: there was none yet."),
	isolation: z.object({
		runner: z.enum(["local", "hf-jobs", "github-actions"]),
		required: z.enum(["auto", "required"]),
		now: z
			.object({ level: z.enum(["own-account", "namespaces", "none"]), reason: z.string().nullable() })
			.nullable()
			.describe("Of runs on this machine; null: they are elsewhere."),
	}),
	deliveries: z.array(Delivery),
	nextCursor,
});

const KnownModel = z.object({
	repo: z.string(),
	private: z.boolean(),
	variants: count,
	lastJob: z.object({ id: z.uuid(), state: z.enum(JOB_STATES), createdAt: time }),
});

/** By the names that the document gives them. */
export const API_SCHEMAS = {
	Refusal,
	Model,
	Variant,
	Job,
	Progress,
	QueuePlace,
	Fit,
	Command,
	Delivery,
	Readiness,
	ModelList: z.object({
		models: z.array(Model),
		count: count.describe("How many there are on all pages."),
		facets: z.object({ container: facet, bits: facet, family: facet, license: facet }),
		similar: z.boolean().describe("No model has the words: these are like them."),
		nextCursor,
	}),
	VariantList: z.object({ variants: z.array(Variant), nextCursor }),
	VariantPage: z.object({
		variant: Variant,
		manifest: z.record(z.string(), z.unknown()).nullable().describe("The published `manifest.json`."),
	}),
	JobLog: z.object({
		events: z.array(z.object({ sequence: count, at: time, kind: z.enum(["state", "runner"]), body: z.unknown() })),
		next: count.nullable().describe("Pass it as `after` for later lines; null at the end."),
	}),
	ModelPage: z.object({
		repo: z.string(),
		newestSha: commit.nullable(),
		fit: Fit,
		variants: z.array(Variant),
		history: z
			.array(
				z.object({
					id: z.uuid(),
					sourceSha: commit,
					recipe: z.string(),
					klNats: z.number().nullable(),
					bytes: bytes.nullable(),
					publishedAt: time,
					isCurrent: z.boolean().describe("Whether it still stands on the Hub."),
				}),
			)
			.describe("What was published of it, the newest first."),
		jobs: z.array(Job).describe("The newest twenty."),
	}),
	JobList: z.object({ jobs: z.array(Job), nextCursor }),
	JobPage: z.object({
		job: Job,
		variants: z.array(Variant),
		progress: Progress,
		place: QueuePlace.nullable().describe("Its place in line for a runner; null when it is not in line."),
	}),
	DeliveryList: z.object({ deliveries: z.array(Delivery), nextCursor }),
	AboutPage: z.object({ about: About }),
	Help: z.object({ commands: z.array(Command) }),
	MyModels: z.object({
		person: z.string(),
		organizations: z.array(z.string()),
		models: z.array(KnownModel),
		nextCursor,
	}),
	Operator,
	Alive: z.object({ alive: z.literal(true), version: z.string() }),
	Fault: z.object({ error: z.string() }),
} as const;

export type ApiSchemaName = keyof typeof API_SCHEMAS;
