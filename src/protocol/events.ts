import { z } from "zod";
import { Estimate, Quantizer } from "./manifest.ts";

export const StageName = z.enum([
	"load",
	"calibrate",
	"sketch",
	"round",
	"tune",
	"export",
	"evaluate",
	"gate",
	"finish",
]);
export type StageName = z.infer<typeof StageName>;

const envelope = {
	job: z.uuid(),
	fence: z.int().min(1),
	at: z.iso.datetime(),
	/** Counts a run's events from 1 where they travel by a log that may lose or repeat lines. */
	number: z.int().min(1).optional(),
};

const StageEvent = z.object({
	event: z.literal("stage"),
	...envelope,
	stage: StageName,
	status: z.enum(["started", "finished", "skipped"]),
	/** Wall-clock seconds, on `finished`. */
	seconds: z.number().min(0).optional(),
	/** Why it was skipped, or what it worked on. */
	detail: z.string().max(1000).optional(),
});

const ProgressEvent = z.object({
	event: z.literal("progress"),
	...envelope,
	stage: StageName,
	done: z.number().min(0),
	total: z.number().min(0),
	unit: z.string().max(32),
	etaSeconds: z.number().min(0).nullable(),
});

const LayerEvent = z.object({
	event: z.literal("layer"),
	...envelope,
	name: z.string().max(512),
	recipe: z.string().max(200),
	proxyError: z.object({ twoSided: z.number(), oneSided: z.number(), rtn: z.number() }),
});

const MetricEvent = z.object({
	event: z.literal("metric"),
	...envelope,
	recipe: z.string().max(200),
	quantizer: Quantizer,
	split: z.enum(["selection", "report"]),
	klNats: Estimate,
});

const WarningEvent = z.object({
	event: z.literal("warning"),
	...envelope,
	code: z.string().max(64),
	message: z.string().max(4000),
});

/** Why a run ended without a result. Fixed words, so that the control plane can decide on a retry. */
export const FailureCode = z.enum([
	"invalid-spec",
	"source-refused",
	"unsupported-model",
	"out-of-memory",
	"disk-full",
	"interrupted",
	"internal",
]);

export const ResultEvent = z.discriminatedUnion("ok", [
	z.object({
		event: z.literal("result"),
		...envelope,
		ok: z.literal(true),
		/** Folders are relative to the staging directory. */
		variants: z.array(z.object({ id: z.uuid(), recipe: z.string(), directory: z.string() })),
		/** Variants that their containers cannot hold, beside those that were made; absent from runners that end there. */
		refused: z
			.array(
				z.object({ id: z.uuid(), recipe: z.string(), message: z.string().max(4000), remedy: z.string().max(4000) }),
			)
			.default([]),
		sketch: z.object({ key: z.string(), directory: z.string() }),
		/** A safetensors file, relative to the staging directory. */
		verification: z.string(),
	}),
	z.object({
		event: z.literal("result"),
		...envelope,
		ok: z.literal(false),
		error: z.object({ code: FailureCode, message: z.string().max(4000), remedy: z.string().max(4000) }),
	}),
]);
export type ResultEvent = z.infer<typeof ResultEvent>;

/** One line of the runner's stdout. */
export const RunnerEvent = z.union([StageEvent, ProgressEvent, LayerEvent, MetricEvent, WarningEvent, ResultEvent]);
export type RunnerEvent = z.infer<typeof RunnerEvent>;
