import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Counts } from "../db/metrics.ts";

/** What lies about, by kind: files, or rows of the database, which have no size of their own. */
export type KeptThings = Readonly<
	Record<string, { readonly entries: number; readonly bytes?: number; readonly removed: number }>
>;

export type Metrics = {
	readonly registry: Registry;
	/** The text of one scrape; what is counted in the database is read for it. */
	readonly scrape: (counts: Counts, streamClients: number) => Promise<string>;
	readonly countIngest: (outcome: string) => void;
	/** Seconds of one thing done for a job: `verify`, `publish` … */
	readonly observeStep: (step: string, seconds: number) => void;
	/** Seconds from the request to the published repo. */
	readonly observePublication: (seconds: number) => void;
	/** What a look over what is kept found, and what it deleted. */
	readonly setKept: (kept: KeptThings) => void;
	/** What the last look found; `null`: there was none yet. */
	readonly lastKept: () => KeptThings | null;
};

/** Gauges of what is kept, set by every look over it. */
function keptGauges(registry: Registry): Pick<Metrics, "setKept" | "lastKept"> {
	let last: KeptThings | null = null;
	const labelNames = ["what"];
	const registers = [registry];
	const entries = new Gauge({ name: "yaqa_bot_kept_entries", help: "What is kept, by kind.", labelNames, registers });
	const bytes = new Gauge({ name: "yaqa_bot_kept_bytes", help: "Bytes that it takes.", labelNames, registers });
	const pruned = new Counter({
		name: "yaqa_bot_pruned_total",
		help: "What was deleted since it was kept no longer.",
		labelNames,
		registers,
	});
	const setKept: Metrics["setKept"] = (kept) => {
		last = kept;
		for (const [what, one] of Object.entries(kept)) {
			entries.set({ what }, one.entries);
			if (one.bytes !== undefined) bytes.set({ what }, one.bytes);
			pruned.inc({ what }, one.removed);
		}
	};
	return { setKept, lastKept: () => last };
}

/**
 * A registry of its own for each server, so that two in one process do not mix. `freeBytes`: of the data directory's
 * disk.
 */
export function createMetrics(freeBytes: (() => number) | null = null): Metrics {
	const registry = new Registry();
	if (freeBytes !== null) {
		new Gauge({
			name: "yaqa_bot_disk_free_bytes",
			help: "Free space where the data directory lies.",
			registers: [registry],
			collect() {
				this.set(freeBytes());
			},
		});
	}
	collectDefaultMetrics({ register: registry, prefix: "yaqa_bot_" });
	const ingest = new Counter({
		name: "yaqa_bot_webhook_requests_total",
		help: "Webhook requests by what became of them.",
		labelNames: ["outcome"],
		registers: [registry],
	});
	const steps = new Histogram({
		name: "yaqa_bot_step_seconds",
		help: "Duration of a job's steps.",
		labelNames: ["step"],
		buckets: [0.01, 0.05, 0.2, 1, 5, 20, 60, 300],
		registers: [registry],
	});
	const publication = new Histogram({
		name: "yaqa_bot_publication_seconds",
		help: "From the request to the published repo.",
		buckets: [30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600],
		registers: [registry],
	});
	const jobs = new Gauge({
		name: "yaqa_bot_jobs",
		help: "Jobs by state.",
		labelNames: ["state"],
		registers: [registry],
	});
	const deliveries = new Gauge({
		name: "yaqa_bot_deliveries",
		help: "Stored webhook deliveries by outcome.",
		labelNames: ["outcome"],
		registers: [registry],
	});
	const variants = new Gauge({
		name: "yaqa_bot_variants",
		help: "Variants by state.",
		labelNames: ["state"],
		registers: [registry],
	});
	const age = new Gauge({
		name: "yaqa_bot_queue_age_seconds",
		help: "Age of the oldest delivery or job that waits for its next step.",
		registers: [registry],
	});
	const streams = new Gauge({
		name: "yaqa_bot_event_stream_clients",
		help: "Open event streams.",
		registers: [registry],
	});
	return {
		registry,
		async scrape(counts, streamClients) {
			for (const gauge of [jobs, deliveries, variants]) gauge.reset();
			for (const [state, count] of Object.entries(counts.jobsByState)) jobs.set({ state }, count);
			for (const [outcome, count] of Object.entries(counts.deliveriesByOutcome)) deliveries.set({ outcome }, count);
			for (const [state, count] of Object.entries(counts.variantsByState)) variants.set({ state }, count);
			age.set(counts.oldestDueSeconds);
			streams.set(streamClients);
			return await registry.metrics();
		},
		countIngest: (outcome) => ingest.inc({ outcome }),
		observeStep: (step, seconds) => steps.observe({ step }, seconds),
		observePublication: (seconds) => publication.observe(seconds),
		...keptGauges(registry),
	};
}
