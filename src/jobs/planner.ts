import type { Refusal } from "../errors.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { SourceFacts } from "../records/source.ts";

/**
 * Says what a job needs and what it costs on each kind of machine, from the source's config and safetensors headers
 * alone. Pure: what machines there are, and how fast earlier jobs were, is handed in.
 */

/** A kind of machine that a runner offers. */
export type Hardware = {
	readonly runner: string;
	/** How the runner names it. */
	readonly flavour: string;
	readonly title: string;
	readonly cores: number;
	readonly memoryBytes: number;
	readonly accelerator: { readonly model: string; readonly count: number; readonly bytesEach: number } | null;
	/** Millionths of a US dollar a minute; 0 for a machine of one's own. */
	readonly microUsdPerMinute: number;
};

export type JobWorkload = {
	readonly facts: Pick<SourceFacts, "repo" | "parameters" | "weightBytes" | "linears" | "vocabulary">;
	/** How many variants are made. */
	readonly variants: number;
	readonly calibrationTokens: number;
	/** Of every text that variants are measured on, together. */
	readonly evaluationTokens: number;
	/** Half steps or rounds of the sketch. */
	readonly iterations: number;
	/** Over the calibration text, to tune the scales. */
	readonly tuningPasses: number;
	/** An earlier job's sketch serves. */
	readonly sketchReused: boolean;
};

/** Stages whose time grows with the model. */
type WorkStage = "sketch" | "round" | "tune" | "evaluate";
const STAGES: readonly WorkStage[] = ["sketch", "round", "tune", "evaluate"];
/** Manifests do not say how many passes tuned them; tuning does the same kind of work as sketching. */
const LEARNED_STAGES = ["sketch", "round", "evaluate"] as const;

/** Floating-point operations of each stage. */
type Work = Readonly<Record<WorkStage, number>>;

/** Seconds a floating-point operation, as finished jobs had them on a device. */
export type MeasuredRate = {
	/** As manifests name the device. */
	readonly device: string;
	readonly stage: (typeof LEARNED_STAGES)[number];
	readonly secondsPerOperation: number;
};

type Estimate = {
	readonly hardware: Hardware;
	readonly fits: boolean;
	readonly neededBytes: number;
	/** Of one accelerator, or of the machine. */
	readonly availableBytes: number;
	readonly minutes: number;
	readonly microUsd: number;
	/** Whether finished jobs on such a device went into the time. */
	readonly isLearned: boolean;
	/** Whether it is done within the time that a run may take. */
	readonly inTime: boolean;
};

export type Plan = {
	readonly workload: JobWorkload;
	/** Cheapest first, then fastest; those that do not fit last. */
	readonly estimates: readonly Estimate[];
	readonly choice: Estimate | null;
	/** Why nothing can be chosen. */
	readonly refusal: Refusal | null;
	/** The choice in words. */
	readonly text: string;
};

const GIB = 1024 ** 3;
/** Tokens of one batch of the runner, by kind of device. */
const BATCH_TOKENS = { cpu: 4096, cuda: 16_384 } as const;
/** Code, libraries, fragmentation, and what a device's driver keeps. */
const OVERHEAD_BYTES = { cpu: 1.5 * GIB, cuda: 2.5 * GIB } as const;
/** Loading, calibration text, files: what does not grow with the work. */
const FIXED_SECONDS = 60;
/** Bytes a second from the Hub or a disk, at which sources are loaded. */
const LOAD_BYTES_PER_SECOND = 200_000_000;
/** Several accelerators share out the sketch's sequences, not the model; of their number, what that is worth. */
const PARALLEL_SHARE = 0.9;
const DEFAULT_VOCABULARY = 128_000;

/**
 * Operations a second that the runner reaches in half precision, a third of the makers' dense figures; before any job
 * has been measured there.
 */
const ACCELERATOR_SPEED: readonly (readonly [model: string, operationsPerSecond: number])[] = [
	["h200", 330e12],
	["h100", 330e12],
	["a100", 100e12],
	["l40s", 120e12],
	["rtx pro 6000", 120e12],
	["a10g", 40e12],
	["l4", 40e12],
	["t4", 20e12],
];
const UNKNOWN_ACCELERATOR_SPEED = 20e12;
const SPEED_PER_CORE = 15e9;
/**
 * Rounding settles element after element: it reaches this share of the speed of plain matrix products. On CUDA by all
 * linears of an 8B Llama in 169 s on an H200.
 */
const ROUNDING_SHARE = { cpu: 0.5, cuda: 0.01 } as const;
/** What the runner holds of one linear that it rounds on a GPU, in float32 squares of its two sides. */
const ROUNDING_SQUARES = 10;

/** Linears as `[rows, columns, count]`; without headers' shapes, those of a plain decoder of that size. */
function linearsOf(facts: JobWorkload["facts"]): NonNullable<SourceFacts["linears"]> {
	if (facts.linears !== undefined && facts.linears.length > 0) return facts.linears;
	// A block has about 12 h² parameters; depth grows with width as in published families.
	const hidden = Math.max(64, Math.cbrt((facts.parameters * 128) / 12));
	const blocks = Math.max(1, Math.round(facts.parameters / (12 * hidden * hidden)));
	return [
		{ rows: hidden, columns: hidden, count: 4 * blocks },
		{ rows: 2.7 * hidden, columns: hidden, count: 2 * blocks },
		{ rows: hidden, columns: 2.7 * hidden, count: blocks },
	];
}

/** What the stages of a job compute. A forward pass takes 2 operations a parameter and token, a backward pass 4. */
export function workOf(workload: JobWorkload): Work {
	const { facts, variants, calibrationTokens, evaluationTokens, iterations, tuningPasses } = workload;
	let contraction = 0;
	let rounding = 0;
	for (const { rows, columns, count } of linearsOf(facts)) {
		contraction += count * (rows * rows + columns * columns);
		rounding += count * rows * columns * (rows + columns);
	}
	const pass = 2 * facts.parameters;
	return {
		// Every half step contracts both sides; the passes that feed them are one a window, here taken as one a half step.
		sketch: workload.sketchReused ? 0 : calibrationTokens * iterations * (3 * pass + 2 * contraction),
		// Two-sided, one-sided and nearest rounding, and two factorisations.
		round: variants * 5 * rounding,
		// Forward passes of both models and one back, for each variant: those of equal codes share theirs.
		tune: variants * tuningPasses * calibrationTokens * 4 * pass,
		evaluate: evaluationTokens * pass * (1 + (tuningPasses > 0 ? 4 : 3) * variants),
	};
}

/** Bytes that a job holds at once on a device. */
export function memoryOf(workload: JobWorkload, device: "cpu" | "cuda"): number {
	const { facts } = workload;
	// On the CPU weights are held in float32, on a GPU as they are stored.
	const weights = device === "cpu" ? 4 * facts.parameters : facts.weightBytes;
	let factors = 0;
	let rounding = 0;
	for (const { rows, columns, count } of linearsOf(facts)) {
		// A window holds one block at least: each shape about as often as it occurs in one.
		const inBlock = Math.max(1, count / Math.max(1, blocksOf(facts)));
		factors += inBlock * 4 * (2 * (rows * rows + columns * columns) + columns * columns);
		if (device === "cuda") rounding = Math.max(rounding, ROUNDING_SQUARES * 4 * (rows * rows + columns * columns));
	}
	const logits = BATCH_TOKENS[device] * (facts.vocabulary ?? DEFAULT_VOCABULARY) * (device === "cpu" ? 8 : 6);
	const sketching = factors + Math.min(logits, 24 * GIB);
	return Math.ceil(weights * 1.05 + Math.max(sketching, rounding) + OVERHEAD_BYTES[device]);
}

function blocksOf(facts: JobWorkload["facts"]): number {
	const counts = linearsOf(facts).map((linear) => linear.count);
	return Math.min(...counts);
}

function speedOf(hardware: Hardware): number {
	const { accelerator } = hardware;
	if (accelerator === null) return hardware.cores * SPEED_PER_CORE;
	const model = accelerator.model.toLowerCase();
	return ACCELERATOR_SPEED.find(([name]) => model.includes(name))?.[1] ?? UNKNOWN_ACCELERATOR_SPEED;
}

function median(values: readonly number[]): number | null {
	const sorted = values.toSorted((one, other) => one - other);
	return sorted[Math.floor(sorted.length / 2)] ?? null;
}

/** Manifests name the device in full ("NVIDIA H200"), lists in short ("H200"); L4 is not L40S. */
function isSameDevice(device: string, hardware: Hardware): boolean {
	const words = (text: string) => ` ${text.toLowerCase().replaceAll(/[^a-z0-9]+/g, " ")} `;
	const name = hardware.accelerator?.model ?? hardware.title;
	return words(device).includes(words(name));
}

function estimate(
	workload: JobWorkload,
	hardware: Hardware,
	rates: readonly MeasuredRate[],
	limitMinutes: number,
): Estimate {
	const device = hardware.accelerator === null ? "cpu" : "cuda";
	const neededBytes = memoryOf(workload, device);
	const { accelerator } = hardware;
	const availableBytes = accelerator === null ? hardware.memoryBytes : accelerator.bytesEach;
	const processes = accelerator === null || accelerator.count === 1 ? 1 : accelerator.count * PARALLEL_SHARE;
	// What a GPU computes is read and written through the machine's own memory.
	const hostFits = accelerator === null || hardware.memoryBytes >= workload.facts.weightBytes * 0.5 + 4 * GIB;
	const work = workOf(workload);
	const speed = speedOf(hardware);
	let seconds = FIXED_SECONDS + workload.facts.weightBytes / LOAD_BYTES_PER_SECOND;
	let isLearned = false;
	for (const stage of STAGES) {
		const measured = median(
			rates
				.filter((rate) => rate.stage === (stage === "tune" ? "sketch" : stage) && isSameDevice(rate.device, hardware))
				.map((rate) => rate.secondsPerOperation),
		);
		const share = stage === "round" ? ROUNDING_SHARE[device] : 1;
		if (measured !== null) isLearned = true;
		seconds += (work[stage] * (measured ?? 1 / (speed * share))) / (stage === "sketch" ? processes : 1);
	}
	const minutes = seconds / 60;
	return {
		hardware,
		fits: hostFits && neededBytes <= availableBytes,
		neededBytes,
		availableBytes,
		minutes,
		microUsd: Math.ceil(minutes * hardware.microUsdPerMinute),
		isLearned,
		inTime: minutes <= limitMinutes,
	};
}

export function usd(microUsd: number): string {
	if (microUsd === 0) return "nothing";
	const dollars = microUsd / 1e6;
	return dollars < 0.01 ? "less than $0.01" : `$${dollars.toFixed(2)}`;
}

function gigabytes(bytes: number): string {
	return `${(bytes / GIB).toFixed(bytes < 10 * GIB ? 1 : 0)} GiB`;
}

function duration(minutes: number): string {
	if (minutes < 1.5) return "about a minute";
	if (minutes < 90) return `about ${Math.round(minutes)} minutes`;
	return `about ${(minutes / 60).toFixed(1)} hours`;
}

function explain(choice: Estimate, estimates: readonly Estimate[]): string {
	const { hardware } = choice;
	const { accelerator } = hardware;
	const count = accelerator?.count ?? 1;
	const why: string[] = [];
	const cheaper = estimates.filter(
		(other) => !other.fits && other.hardware.microUsdPerMinute <= hardware.microUsdPerMinute && other !== choice,
	);
	const alone = estimates.some(
		(other) => other.fits && !other.inTime && (other.hardware.accelerator?.count ?? 1) < count,
	);
	if (choice.inTime && alone) why.push(`fewer accelerators would take too long, so that ${count} share the sketch`);
	else if (cheaper.length > 0) why.push(`${cheaper.length} cheaper or equal ones have too little memory`);
	if (estimates.filter((other) => other.fits).length > 1) why.push("the cheapest that fits");
	const reason = why.length === 0 ? "" : `: ${why.join("; ")}`;
	const source = choice.isLearned ? "by earlier jobs on such a machine" : "before any job was measured there";
	const cost = choice.microUsd === 0 ? "at no charge" : `for ${usd(choice.microUsd)}`;
	return `${hardware.title} (${hardware.runner})${reason}. Takes ${gigabytes(choice.neededBytes)} of its ${gigabytes(choice.availableBytes)} of memory and ${duration(choice.minutes)}, ${cost}; estimated ${source}.`;
}

/**
 * The cheapest machine that holds the job and is done in time, `limitMinutes`; where none is, the fastest that holds it,
 * since an estimate is no reason not to try.
 */
export function planJob(
	workload: JobWorkload,
	hardware: readonly Hardware[],
	rates: readonly MeasuredRate[] = [],
	limitMinutes = Number.POSITIVE_INFINITY,
): Plan {
	const all = hardware.map((one) => estimate(workload, one, rates, limitMinutes));
	const rank = (one: Estimate) => (one.fits ? (one.inTime ? 0 : 1) : 2);
	const estimates = all.toSorted(
		(one, other) =>
			rank(one) - rank(other) ||
			(rank(one) === 1 ? one.minutes - other.minutes : 0) ||
			one.microUsd - other.microUsd ||
			one.minutes - other.minutes,
	);
	const [first] = estimates;
	if (first?.fits === true) {
		return { workload, estimates, choice: first, refusal: null, text: explain(first, estimates) };
	}
	const largest = estimates.toSorted((one, other) => other.availableBytes - one.availableBytes)[0];
	const message =
		largest === undefined
			? "There is no machine to run it on."
			: `${workload.facts.repo} needs about ${gigabytes(largest.neededBytes)} of memory; the largest ${largest.hardware.accelerator === null ? "machine" : "accelerator"}, of ${largest.hardware.title} of ${largest.hardware.runner}, has ${gigabytes(largest.availableBytes)}.`;
	const remedy = "Whoever runs the bot can give it a larger machine, or another runner.";
	return {
		workload,
		estimates,
		choice: null,
		refusal: { code: "too-large", message, remedy },
		text: `${message} ${remedy}`,
	};
}

/** What a finished variant teaches. `variants`: how many its job made, since the time of rounding is the job's. */
export function ratesOf(
	manifest: Manifest,
	source: { readonly parameters: number; readonly variants: number },
): readonly MeasuredRate[] {
	const linears = manifest.layers.map(({ shape: [rows, columns] }) => ({ rows, columns, count: 1 }));
	const work = workOf({
		facts: { repo: manifest.source.repo, parameters: source.parameters, weightBytes: 0, linears },
		variants: source.variants,
		calibrationTokens: manifest.calibration.tokens,
		evaluationTokens: manifest.evaluation.texts.reduce((sum, text) => sum + text.tokens, 0),
		iterations: manifest.sketch.iterations,
		tuningPasses: manifest.evaluation.measured.some(({ quantizer }) => quantizer === "two-sided-tuned") ? 1 : 0,
		sketchReused: manifest.sketch.reused,
	});
	// A variant's own measuring is a share of the job's.
	const done: Work = { ...work, evaluate: work.evaluate / Math.max(1, source.variants) };
	return LEARNED_STAGES.flatMap((stage) => {
		const seconds = manifest.seconds[stage];
		if (seconds === undefined || seconds <= 0 || done[stage] <= 0) return [];
		return [{ device: manifest.device.name, stage, secondsPerOperation: seconds / done[stage] }];
	});
}
