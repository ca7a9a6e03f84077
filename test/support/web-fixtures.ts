import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { ConfigurationFile } from "../../src/config/schema.ts";
import type { QueuePlace } from "../../src/db/admission.ts";
import type { StoreDelivery } from "../../src/deliveries/store-delivery.ts";
import { silentLog } from "../../src/log.ts";
import type { Manifest, Metrics, Quantizer } from "../../src/protocol/manifest.ts";
import type { ModelShape } from "../../src/protocol/model-shape.ts";
import { parseRecipe, recipeHash } from "../../src/protocol/recipe.ts";
import type { DeliveryRecord } from "../../src/records/delivery.ts";
import type { JobEventRecord, JobRecord, JobState } from "../../src/records/job.ts";
import type { VariantRecord } from "../../src/records/variant.ts";
import { createApp, type WebOptions } from "../../src/web/create-app.ts";
import type { WebData } from "../../src/web/data.ts";
import { createMetrics } from "../../src/web/metrics.ts";
import { aboutOf } from "../../src/web/views/about-page.ts";

export const NOW = new Date("2026-11-22T12:00:00.000Z");
export const SECRET = "a long enough secret";
export const GITHUB_SECRET = "a signing secret of GitHub";
const SHA = "3f2c8b1d9e7a4c5b6d8f0e1a2b3c4d5e6f708192";

/** Llama 3.1 8B. */
export const EIGHT_BILLION: ModelShape = {
	architecture: "LlamaForCausalLM",
	hidden: 4_096,
	feedForward: 14_336,
	vocabulary: 128_256,
	layers: 32,
	contextLength: 131_072,
	attention: [{ layers: 32, keyWidth: 1_024, valueWidth: 1_024, window: null }],
	stateWidth: 0,
};

let counter = 0;
export function uuid(): string {
	return `00000000-0000-4000-8000-${String(++counter).padStart(12, "0")}`;
}

function metrics(mean: number, standardError: number): Metrics {
	return {
		klNats: { mean, standardError, median: mean * 0.5, p90: mean * 2, p99: mean * 6 },
		topOneAgreement: 1 - Math.sqrt(mean) / 4,
		perplexity: { original: 20, quantized: 20 * (1 + mean), ratio: 1 + mean },
		sequences: 48,
		tokens: 12_240,
	};
}

export function makeManifest(options: {
	recipe: string;
	repo: string;
	sha: string;
	kl: number;
	bytes: number;
	shape?: ModelShape;
}): Manifest {
	const measured = (["two-sided", "one-sided", "rtn"] as const).map((quantizer: Quantizer, index) => ({
		quantizer,
		bytes: options.bytes,
		report: metrics(options.kl * (1 + index * 0.95), options.kl * 0.04),
		byDomain: {},
	}));
	return {
		manifest: 1,
		job: uuid(),
		fence: 1,
		variant: uuid(),
		recipe: options.recipe,
		createdAt: NOW.toISOString(),
		source: { repo: options.repo, revision: options.sha, license: "apache-2.0" },
		files: [{ path: "model.gguf", size: options.bytes, sha256: "a".repeat(64) }],
		generator: { name: "yaqa-runner", version: "0.1.0" },
		versions: {},
		device: { kind: "cpu", name: "test", driver: null },
		seeds: {},
		calibration: { kind: "text", sha256: "b".repeat(64), sequences: 128, length: 256, tokens: 32_768 },
		sketch: { kind: "a", key: "k", iterations: 6, reused: false },
		seconds: {},
		quantizer: "two-sided",
		gate: {
			selection: [{ quantizer: "two-sided", klNats: { mean: 0.01, standardError: 0.001 } }],
			winner: "two-sided",
			reason: "lowest",
		},
		evaluation: { convention: "next token", texts: [], measured },
		verification: { klNats: options.kl, sequences: 4, positions: 1000 },
		shape: options.shape ?? null,
		layers: [],
		unquantized: [],
	};
}

export function makeVariant(
	options: Partial<VariantRecord> & { kl?: number; bytes?: number; shape?: ModelShape } = {},
): VariantRecord {
	const recipe = options.recipe ?? "gguf:q4_0";
	const parsed = parseRecipe(recipe);
	const sourceRepo = options.sourceRepo ?? "demo/small-llama";
	const state = options.state ?? "published";
	return {
		id: uuid(),
		sourceRepo,
		sourceSha: SHA,
		recipe,
		recipeHash: parsed.ok ? recipeHash(parsed.recipe) : "0".repeat(16),
		jobId: "00000000-0000-4000-8000-00000000aaaa",
		state,
		targetRepo: `yaqa-bot/${sourceRepo.split("/")[1]}-YAQA-GGUF`,
		manifest:
			state === "wanted"
				? null
				: makeManifest({
						recipe,
						repo: "demo/small-llama",
						sha: SHA,
						kl: options.kl ?? 0.021,
						bytes: options.bytes ?? 6_100_000,
						...(options.shape === undefined ? {} : { shape: options.shape }),
					}),
		targetSha: state === "published" ? SHA : null,
		refusal: null,
		createdAt: NOW,
		publishedAt: state === "published" ? new Date(NOW.getTime() - 3_600_000) : null,
		...Object.fromEntries(Object.entries(options).filter(([key]) => !["kl", "bytes", "shape"].includes(key))),
	};
}

export function makeJob(options: Partial<JobRecord> = {}): JobRecord {
	return {
		id: uuid(),
		sourceRepo: "demo/small-llama",
		sourceSha: SHA,
		state: "running",
		fence: 1,
		runner: "local-1",
		runnerHandle: "secret-handle",
		cancelRequested: false,
		refusal: null,
		statusText: "The runner works on it.",
		createdAt: new Date(NOW.getTime() - 200_000),
		updatedAt: NOW,
		startedAt: new Date(NOW.getTime() - 150_000),
		finishedAt: null,
		...options,
	};
}

/** Rows of a job up to the middle of its rounding. */
export function makeEvents(jobId: string): JobEventRecord[] {
	const rows: JobEventRecord[] = [];
	const at = (seconds: number) => new Date(NOW.getTime() - 200_000 + seconds * 1000);
	const state = (seconds: number, from: JobState | null, to: JobState, statusText: string) =>
		rows.push({ jobId, sequence: rows.length + 1, at: at(seconds), kind: "state", body: { from, to, statusText } });
	const runner = (seconds: number, body: object) =>
		rows.push({
			jobId,
			sequence: rows.length + 1,
			at: at(seconds),
			kind: "runner",
			body: { ...body, job: jobId, fence: 1, at: at(seconds).toISOString() },
		});
	state(0, null, "planned", "Planned.");
	state(3, "planned", "dispatching", "Starting the runner.");
	state(5, "dispatching", "running", "The runner works on it.");
	runner(6, { event: "stage", stage: "load", status: "started" });
	runner(8, { event: "stage", stage: "load", status: "finished", seconds: 2.1 });
	runner(9, { event: "stage", stage: "calibrate", status: "finished", seconds: 0.8 });
	runner(10, { event: "stage", stage: "sketch", status: "started" });
	runner(60, { event: "stage", stage: "sketch", status: "finished", seconds: 49.6 });
	runner(61, { event: "stage", stage: "round", status: "started" });
	for (let layer = 0; layer < 14; layer++) {
		runner(62 + layer, {
			event: "layer",
			name: `model.layers.${Math.floor(layer / 7)}.${["self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"][layer % 3]}`,
			recipe: "gguf:q4_0",
			proxyError: { twoSided: 0.31 + layer / 100, oneSided: 0.62, rtn: 1 },
		});
	}
	runner(80, { event: "progress", stage: "round", done: 14, total: 57, unit: "layers", etaSeconds: 42 });
	runner(81, { event: "warning", code: "batch-halved", message: "Out of memory at batch 8; went on with 4." });
	for (const [quantizer, mean] of [
		["two-sided", 0.0213],
		["one-sided", 0.0402],
		["rtn", 0.0671],
	] as const) {
		runner(82, {
			event: "metric",
			recipe: "gguf:q4_0",
			quantizer,
			split: "report",
			klNats: { mean, standardError: 0.0011 },
		});
	}
	return rows;
}

export function memoryData(
	content: {
		variants?: VariantRecord[];
		jobs?: JobRecord[];
		events?: JobEventRecord[];
		deliveries?: DeliveryRecord[];
		places?: Readonly<Record<string, QueuePlace>>;
	} = {},
): WebData & { readonly storeDelivery: StoreDelivery; stored: DeliveryRecord[] } {
	const { variants = [], jobs = [], events = [], deliveries = [] } = content;
	const stored: DeliveryRecord[] = [...deliveries];
	return {
		stored,
		version: async () => null,
		listModels: async (query) => {
			const shown = variants.filter(
				(variant) =>
					variant.state === "published" && query.words.every((word) => variant.sourceRepo.toLowerCase().includes(word)),
			);
			const models = [...Map.groupBy(shown, (variant) => variant.sourceRepo)].map(([repo, group]) => {
				const sizes = group.flatMap((one) => one.manifest?.files.map((file) => file.size) ?? []);
				return {
					repo,
					variants: group.length,
					leastBytes: Math.min(...sizes),
					mostBytes: Math.max(...sizes),
					leastKlNats: Math.min(...group.map((one) => one.manifest?.evaluation.measured[0]?.report.klNats.mean ?? 1)),
					publishedAt: NOW.toISOString(),
					containers: ["gguf"],
					bits: [4],
					family: "Llama",
					parameters: 8e9,
					license: "apache-2.0",
					leastMemory: null,
				};
			});
			return {
				page: { items: models, next: null },
				models: models.length,
				facets: {
					container: [{ value: "gguf", count: models.length }],
					bits: [{ value: "4", count: models.length }],
					family: [{ value: "Llama", count: models.length }],
					license: [{ value: "apache-2.0", count: models.length }],
				},
				similar: false,
			};
		},
		listPublishedVariants: async (query) => ({
			items: variants.filter(
				(variant) =>
					variant.state === "published" && (query.search === null || variant.sourceRepo.includes(query.search)),
			),
			next: null,
		}),
		listVariantsOfSource: async (repo) => variants.filter((variant) => variant.sourceRepo === repo),
		listHistoryOfSource: async (repo) =>
			variants
				.filter((variant) => variant.sourceRepo === repo && variant.state === "published")
				.map((variant) => ({
					id: variant.id,
					sourceSha: variant.sourceSha,
					recipe: variant.recipe,
					klNats: variant.manifest?.evaluation.measured[0]?.report.klNats.mean ?? null,
					bytes: variant.manifest?.files[0]?.size ?? null,
					publishedAt: variant.publishedAt ?? NOW,
					isCurrent: variant.isCurrent ?? true,
				})),
		getVariant: async (id) => variants.find((variant) => variant.id === id) ?? null,
		listVariantsOfJob: async (id) => variants.filter((variant) => variant.jobId === id),
		listJobs: async () => ({ items: jobs, next: null }),
		listJobsOfSource: async (repo) => jobs.filter((job) => job.sourceRepo === repo),
		getJob: async (id) => jobs.find((job) => job.id === id) ?? null,
		queuePlace: async (id) => content.places?.[id] ?? null,
		listJobEvents: async (id, after, limit) =>
			events.filter((event) => event.jobId === id && event.sequence > after).slice(0, limit),
		searchJobEvents: async (id, query) =>
			events
				.filter((event) => event.jobId === id && event.sequence > query.after)
				.filter((event) => query.search === null || JSON.stringify(event.body).includes(query.search))
				.slice(0, query.limit),
		listDeliveries: async () => ({ items: stored, next: null }),
		async storeDelivery(delivery) {
			const known = stored.find((row) => row.dedupeKey === delivery.dedupeKey);
			if (known !== undefined) return { id: known.id, duplicate: true };
			const row: DeliveryRecord = { id: uuid(), outcome: "pending", detail: null, ...delivery };
			stored.push(row);
			return { id: row.id, duplicate: false };
		},
		listSourcesOf: async () => ({ items: [], next: null }),
		counts: async () => ({
			jobsByState: { running: 2 },
			deliveriesByOutcome: { accepted: 3 },
			variantsByState: { published: 5 },
			oldestDueSeconds: 1.5,
		}),
	};
}

export type TestSite = { url: string; close: () => Promise<void> };

export async function startSite(
	data: WebData & { readonly storeDelivery?: StoreDelivery },
	options: Partial<WebOptions> = {},
): Promise<TestSite> {
	const site = createApp({
		data,
		storeDelivery: data.storeDelivery ?? (() => Promise.reject(new Error("This site takes no deliveries."))),
		webhookSecrets: [SECRET, "the previous secret"],
		progress: { isAllowed: () => false, store: async () => false },
		gitHubWebhookSecrets: [GITHUB_SECRET, "the previous signing secret"],
		maxBodyBytes: 4096,
		hubUrl: "http://hub.example",
		botName: "yaqa-bot",
		about: aboutOf(ConfigurationFile.parse({}), false),
		version: "0.1.0",
		checks: [],
		metrics: createMetrics(),
		clock: { now: () => NOW },
		log: silentLog,
		pollMilliseconds: 10,
		...options,
	});
	const server: Server = site.app.listen(0, "127.0.0.1");
	await once(server, "listening");
	return {
		url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
		close: async () => {
			site.close();
			server.closeAllConnections();
			server.close();
			await once(server, "close");
		},
	};
}
