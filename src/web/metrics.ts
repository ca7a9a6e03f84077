import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Counts } from "../db/metrics.ts";

export type Metrics = {
	readonly registry: Registry;
	/** The text of one scrape; what is counted in the database is read for it. */
	readonly scrape: (counts: Counts, streamClients: number) => Promise<string>;
	readonly countIngest: (outcome: string) => void;
	/** Seconds of one thing done for a job: `verify`, `publish` … */
	readonly observeStep: (step: string, seconds: number) => void;
	/** Seconds from the request to the published repo. */
	readonly observePublication: (seconds: number) => void;
};

/** A registry of its own for each server, so that two in one process do not mix. */
export function createMetrics(): Metrics {
	const registry = new Registry();
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
	};
}
