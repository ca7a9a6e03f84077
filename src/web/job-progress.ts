import { z } from "zod";
import { RunnerEvent, StageName } from "../protocol/events.ts";
import type { Estimate, Quantizer } from "../protocol/manifest.ts";
import type { JobEventRecord } from "../records/job.ts";

export type StageProgress = {
	readonly stage: StageName;
	readonly status: "pending" | "started" | "finished" | "skipped";
	readonly seconds: number | null;
	readonly done: number | null;
	readonly total: number | null;
	readonly unit: string;
	readonly etaSeconds: number | null;
	readonly detail: string | null;
};

type MetricRow = { readonly recipe: string; readonly quantizer: Quantizer; readonly klNats: Estimate };
type LayerRow = {
	readonly name: string;
	readonly recipe: string;
	/** Proxy errors as shares of round-to-nearest's; `null` where that is zero. */
	readonly twoSided: number | null;
	readonly oneSided: number | null;
};

/** Everything the job page shows of the events so far. */
export type JobProgress = {
	readonly lastSequence: number;
	readonly attempt: number | null;
	/** When the attempt first told of itself. */
	readonly attemptAt: Date | null;
	readonly states: readonly { readonly state: string; readonly at: Date; readonly statusText: string }[];
	/** What was noted while a state lasted: the checks that verification made, the commits that published. */
	readonly notes: readonly string[];
	readonly stages: readonly StageProgress[];
	/** Newest last, at most `KEPT_LAYERS`. */
	readonly layers: readonly LayerRow[];
	readonly layerCount: number;
	readonly metrics: readonly MetricRow[];
	readonly warnings: readonly { readonly code: string; readonly message: string }[];
};

const KEPT_LAYERS = 12;
const KEPT_WARNINGS = 20;
const KEPT_NOTES = 200;

const StateChange = z.object({ to: z.string(), statusText: z.string().catch("") });

function freshStages(): readonly StageProgress[] {
	return StageName.options.map((stage) => ({
		stage,
		status: "pending",
		seconds: null,
		done: null,
		total: null,
		unit: "",
		etaSeconds: null,
		detail: null,
	}));
}

export const NO_PROGRESS: JobProgress = {
	lastSequence: 0,
	attempt: null,
	attemptAt: null,
	states: [],
	notes: [],
	stages: freshStages(),
	layers: [],
	layerCount: 0,
	metrics: [],
	warnings: [],
};

function withStage(progress: JobProgress, stage: StageName, change: Partial<StageProgress>): JobProgress {
	return {
		...progress,
		stages: progress.stages.map((entry) => (entry.stage === stage ? { ...entry, ...change } : entry)),
	};
}

function share(value: number, of: number): number | null {
	return of > 0 && Number.isFinite(value) ? value / of : null;
}

/** One more event. Rows that this version cannot read are passed over. */
export function foldEvent(before: JobProgress, row: JobEventRecord): JobProgress {
	const progress: JobProgress = { ...before, lastSequence: row.sequence };
	if (row.kind === "state") {
		const change = StateChange.safeParse(row.body);
		if (!change.success) return progress;
		const last = progress.states.at(-1);
		if (last?.state === change.data.to) {
			return { ...progress, notes: [...progress.notes.slice(1 - KEPT_NOTES), change.data.statusText] };
		}
		return {
			...progress,
			states: [...progress.states, { state: change.data.to, at: row.at, statusText: change.data.statusText }],
		};
	}
	const parsed = RunnerEvent.safeParse(row.body);
	if (!parsed.success) return progress;
	const event = parsed.data;
	if (progress.attempt !== event.fence) {
		// A new attempt starts over; what the last one had reached would mislead.
		return foldEvent(
			{
				...progress,
				attempt: event.fence,
				attemptAt: row.at,
				notes: [],
				stages: freshStages(),
				layers: [],
				layerCount: 0,
				metrics: [],
				warnings: [],
			},
			row,
		);
	}
	switch (event.event) {
		case "stage":
			return withStage(progress, event.stage, {
				status: event.status,
				seconds: event.seconds ?? null,
				detail: event.detail ?? null,
				...(event.status === "started" ? {} : { etaSeconds: null }),
			});
		case "progress":
			return withStage(progress, event.stage, {
				status: "started",
				done: event.done,
				total: event.total,
				unit: event.unit,
				etaSeconds: event.etaSeconds,
			});
		case "layer":
			return {
				...progress,
				layerCount: progress.layerCount + 1,
				layers: [
					...progress.layers.slice(1 - KEPT_LAYERS),
					{
						name: event.name,
						recipe: event.recipe,
						twoSided: share(event.proxyError.twoSided, event.proxyError.rtn),
						oneSided: share(event.proxyError.oneSided, event.proxyError.rtn),
					},
				],
			};
		case "metric": {
			if (event.split !== "report") return progress;
			const others = progress.metrics.filter((row) => row.recipe !== event.recipe || row.quantizer !== event.quantizer);
			return {
				...progress,
				metrics: [...others, { recipe: event.recipe, quantizer: event.quantizer, klNats: event.klNats }],
			};
		}
		case "warning":
			return {
				...progress,
				warnings: [...progress.warnings.slice(1 - KEPT_WARNINGS), { code: event.code, message: event.message }],
			};
		case "result":
			return progress;
	}
}

export function foldEvents(before: JobProgress, rows: readonly JobEventRecord[]): JobProgress {
	return rows.reduce(foldEvent, before);
}
