import {
	factoringBytes,
	MEASURED_SHARE,
	PROCESS_BYTES,
	RESIDENT_SHARE,
	roundingBytes,
	SWEEP,
	sketchBytes,
	triangleBytes,
} from "../../protocol/runner-memory.ts";
import type { BlockKind, ConfiguredModel } from "./blocks-of-config.ts";
import type { Hardware } from "./hardware.ts";
import { LOAD_BYTES_PER_SECOND, PARALLEL_SHARE, ROUNDING_SHARE, speedOf } from "./machine-estimate.ts";
import { OVERHEAD_BYTES } from "./memory.ts";
import { type BlockWindow, pairBytes, planSweep, type SweepPlan, storeBytesOf, windowsOf } from "./sweep-plan.ts";

/** What is wanted of a model of which there is no more than a configuration. */
export type StageSettings = {
	readonly sequences: number;
	readonly length: number;
	readonly iterations: number;
	readonly evaluationTokens: number;
	readonly variants: number;
	/** Stored bits a weight, on average over the variants. */
	readonly bitsPerWeight: number;
};

type StageName = "fetch" | "sketch" | "round" | "tune" | "measure";

/** Bytes held at once, bytes moved, and time. `diskBytes` counts all that lies there in the stage. */
export type StagePlan = {
	readonly name: StageName;
	readonly deviceBytes: number;
	readonly hostBytes: number;
	readonly diskBytes: number;
	readonly readBytes: number;
	readonly writtenBytes: number;
	readonly seconds: number;
	readonly microUsd: number;
	/** What it takes and the machine has not, or `null`. */
	readonly lacks: string | null;
};

export type MachineStages = {
	readonly hardware: Hardware;
	/** As many of the calibration sequences as memory and disk hold between blocks. */
	readonly sequences: number;
	readonly store: SweepPlan["store"];
	readonly storeBytes: number;
	readonly stages: readonly StagePlan[];
	readonly seconds: number;
	readonly microUsd: number;
};

const LABEL_SAMPLES = 1;
const HOST_OVERHEAD_BYTES = 4 * 1024 ** 3;
/** Logits of a slice, and what is made of them while labels are drawn. */
const HEAD_BYTES = 6 * 64 * 1024 ** 2;
/** Bytes a second of a machine's disk. */
const DISK_BYTES_PER_SECOND = 1e9;
/** Float64 operations a second in factoring, of the makers' figures about a third; all others. */
const FLOAT64_SPEED: readonly (readonly [model: string, operationsPerSecond: number])[] = [
	["h200", 20e12],
	["h100", 20e12],
	["a100", 6e12],
];
const SLOW_FLOAT64_SPEED = 0.3e12;
const FLOAT64_SHARE_OF_A_PROCESSOR = 0.5;
/** Cubes of a side: a kernel of it is factored, inverted and squared; at the end five dampings are tried. */
const KERNEL_CUBES = 1;
const TRUST_CUBES = 5 / 3;
/** Host memory of a linear that is rounded on a processor, over its two factors. */
const ROUNDING_ON_HOST = 3;

/** Weights of finished files, as they are measured. */
const FLOAT32_BYTES = 4;
/** Tokens a block sees at once while variants are measured, and the sweeps that the original's own words take. */
const SWEPT_TOKENS = 4096;
const SWEPT_GREEDY_TOKENS = 4;

/** What the figures rest on and nobody measured, to be read with them. */
export const RATE_ASSUMPTIONS: readonly string[] = [
	"Memory is reckoned as the runner plans it; at this size nobody has measured it.",
	"Rates are assumed, not measured: a third of the makers' dense bfloat16 figures, 1 GB/s from and to the machine's disk, 0.2 GB/s from the Hub, float64 at 20 TFLOP/s on H100 and H200, 6 on A100 and 0.3 on others; reading and computing do not overlap.",
];

/** Of a model that is not there whole, scales are tuned in so many steps, each a sweep forward and one backward. */
const TUNING_STEPS = 8;
const TUNING_PASSES = 4;
/** Weights that share a scale; change and two moments of it, as one step leaves them and as the next does. */
const WEIGHTS_A_SCALE = 32;
const BYTES_A_SCALE = 2 * 3 * 4;

type Context = {
	readonly model: ConfiguredModel;
	readonly settings: StageSettings;
	readonly hardware: Hardware;
	readonly device: "cpu" | "cuda";
	/** Of one accelerator, or of the machine. */
	readonly availableBytes: number;
	readonly checkpointBytes: number;
	/** Of the weights as they are computed with. */
	readonly wholeBytes: number;
	readonly isMapped: boolean;
	/** Weights that are there at once. */
	readonly residentBytes: number;
	readonly factorBytes: number;
};

/** Stage by stage, what the model needs of a machine, and what the machine lacks. */
export function planStages(model: ConfiguredModel, settings: StageSettings, hardware: Hardware): MachineStages {
	const context = contextOf(model, settings, hardware);
	const sequences = fittingSequences(context);
	const plan = sweepOf(context, Math.max(1, sequences));
	const stages = [
		fetchStage(context),
		sketchStage(context, plan, Math.max(1, sequences)),
		roundStage(context),
		...(context.isMapped ? [tuneStage(context)] : []),
		measureStage(context),
	].map((stage): StagePlan => {
		return {
			...stage,
			microUsd: Math.ceil((stage.seconds / 60) * hardware.microUsdPerMinute),
			lacks: lackOf(context, stage),
		};
	});
	const total = (of: (stage: StagePlan) => number) => stages.reduce((sum, stage) => sum + of(stage), 0);
	return {
		hardware,
		sequences,
		store: plan.store,
		storeBytes: plan.storeBytes,
		stages:
			sequences > 0 ? stages : stages.map((stage) => (stage.name === "sketch" ? withoutStore(context, stage) : stage)),
		seconds: total(({ seconds }) => seconds),
		microUsd: total(({ microUsd }) => microUsd),
	};
}

function contextOf(model: ConfiguredModel, settings: StageSettings, hardware: Hardware): Context {
	const device = hardware.accelerator === null ? "cpu" : "cuda";
	const availableBytes = hardware.accelerator?.bytesEach ?? hardware.memoryBytes;
	const elementBytes = device === "cpu" ? 4 : 2;
	const wholeBytes = elementBytes * model.parameters;
	const isMapped = wholeBytes > RESIDENT_SHARE * availableBytes;
	const largest = Math.max(...model.blocks.map(parametersOf));
	return {
		model,
		settings,
		hardware,
		device,
		availableBytes,
		checkpointBytes: 2 * model.parameters,
		wholeBytes,
		isMapped,
		residentBytes: isMapped ? elementBytes * (model.outerParameters + largest) : wholeBytes,
		factorBytes: model.blocks.reduce((sum, kind) => sum + kind.count * factorBytesOf(kind), 0),
	};
}

function parametersOf({ linears, otherParameters }: BlockKind): number {
	return linears.reduce((sum, { rows, columns }) => sum + rows * columns, otherParameters);
}

/** A block's factors as its sketch's file keeps them: two a linear, and a moment for each input. */
function factorBytesOf({ linears }: BlockKind): number {
	const moments = new Map(linears.map(({ input, columns }) => [input, triangleBytes(columns)]));
	const pairs = linears.reduce((sum, { rows, columns }) => sum + triangleBytes(rows) + triangleBytes(columns), 0);
	return pairs + [...moments.values()].reduce((sum, bytes) => sum + bytes, 0);
}

function blockCountOf({ blocks }: ConfiguredModel): number {
	return blocks.reduce((sum, { count }) => sum + count, 0);
}

function storeOf({ model, settings, device }: Context, sequences: number): number {
	return storeBytesOf({
		blockCount: blockCountOf(model),
		tokenBytes: model.hidden * (device === "cpu" ? 4 : 2),
		sequences,
		length: settings.length,
		labelSamples: LABEL_SAMPLES,
	});
}

function freeBytes({ hardware, checkpointBytes }: Context): number {
	return Math.max(0, (hardware.diskBytes ?? Number.MAX_SAFE_INTEGER) - checkpointBytes);
}

/** The most sequences whose hidden states memory or disk hold; what lies on the disk gives way to factors as they come. */
function fittingSequences(context: Context): number {
	const { settings, hardware } = context;
	const holds = (sequences: number) => {
		const bytes = storeOf(context, sequences);
		return bytes <= freeBytes(context) * SWEEP.diskShare || bytes <= hardware.memoryBytes * SWEEP.hostShare;
	};
	let [fitting, tooMany] = [0, settings.sequences + 1];
	while (tooMany - fitting > 1) {
		const middle = Math.floor((fitting + tooMany) / 2);
		if (holds(middle)) fitting = middle;
		else tooMany = middle;
	}
	return fitting;
}

function sweepOf(context: Context, sequences: number): SweepPlan {
	const { model, settings, device, availableBytes, residentBytes } = context;
	const left = Math.max(0, availableBytes - residentBytes - (device === "cpu" ? PROCESS_BYTES : 0));
	return planSweep({
		blocks: model.blocks.map(({ linears }) => linears),
		blockCount: blockCountOf(model),
		tokenBytes: model.hidden * (device === "cpu" ? 4 : 2),
		sequences,
		length: settings.length,
		labelSamples: LABEL_SAMPLES,
		budgetBytes: Math.trunc(left * (device === "cuda" ? SWEEP.gpuShare : SWEEP.hostShare)),
		device,
		diskBytes: freeBytes(context),
	});
}

type Bare = Omit<StagePlan, "microUsd" | "lacks">;

function fetchStage({ checkpointBytes }: Context): Bare {
	return {
		name: "fetch",
		deviceBytes: 0,
		hostBytes: HOST_OVERHEAD_BYTES,
		diskBytes: checkpointBytes,
		readBytes: checkpointBytes,
		writtenBytes: checkpointBytes,
		seconds: checkpointBytes / LOAD_BYTES_PER_SECOND,
	};
}

/** Bytes of a window while it is sketched, of linears as many tokens as reach them. */
function windowBytes(window: BlockWindow, kind: BlockKind, tokens: number): number {
	const factors = window.linears.map(sketchBytes);
	if (window.mode === "streaming") return factors.reduce((sum, bytes) => sum + bytes, 0);
	const shares = new Map(kind.linears.map(({ input, tokenShare }) => [input, tokenShare]));
	const groups = Map.groupBy(window.linears, ({ input }) => input);
	let pairs = 0;
	for (const [input, group] of groups) pairs += pairBytes(group, tokens, LABEL_SAMPLES) * (shares.get(input) ?? 1);
	return pairs + Math.max(...factors);
}

function sketchStage(context: Context, plan: SweepPlan, sequences: number): Bare {
	const { model, settings, device, hardware } = context;
	const tokens = sequences * settings.length;
	const level = storeOf(context, sequences) / (blockCountOf(model) + 2 * LABEL_SAMPLES);
	const shared =
		hardware.accelerator === null || hardware.accelerator.count === 1 ? 1 : hardware.accelerator.count * PARALLEL_SHARE;
	let [held, read, seconds] = [0, context.checkpointBytes * (context.isMapped ? 2 : 1), 0];
	for (const kind of model.blocks) {
		const windows = windowsOf(kind.linears, {
			...settings,
			tokens,
			labelSamples: LABEL_SAMPLES,
			pairsBytes: plan.pairsBytes,
		});
		const widest = kind.linears.reduce((sum, linear) => sum + (linear.rows + linear.columns) * linear.tokenShare, 0);
		const activations = plan.batch * settings.length * 4 * widest * SWEEP.activationsBesides;
		const window = Math.max(...windows.map((one) => windowBytes(one, kind, tokens)));
		held = Math.max(held, activations + window + Math.max(...kind.linears.map(factoringBytes)));
		const passes = windows.reduce((sum, { mode }) => sum + (mode === "cached" ? 1 : settings.iterations), 0);
		if (plan.store === "disk") read += kind.count * level * (1 + passes * (1 + LABEL_SAMPLES));
		seconds += kind.count * secondsOfBlock(context, kind, tokens, passes, shared);
	}
	// Through the output layer, once forward and once back.
	seconds += (4 * model.vocabulary * model.hidden * tokens) / speedOf(hardware) / shared;
	const onDisk =
		plan.store === "disk"
			? 2 * LABEL_SAMPLES * level + Math.max(plan.storeBytes - 2 * LABEL_SAMPLES * level, context.factorBytes)
			: context.factorBytes;
	const written =
		(plan.store === "disk" ? plan.storeBytes + blockCountOf(model) * level * LABEL_SAMPLES : 0) + context.factorBytes;
	const beside = (plan.store === "memory" ? plan.storeBytes : 0) + Math.max(...model.blocks.map(factorBytesOf));
	const deviceBytes = context.residentBytes + held + HEAD_BYTES + OVERHEAD_BYTES[device];
	return {
		name: "sketch",
		deviceBytes: device === "cuda" ? deviceBytes : 0,
		hostBytes: device === "cuda" ? HOST_OVERHEAD_BYTES + beside : deviceBytes + beside,
		diskBytes: context.checkpointBytes + onDisk,
		readBytes: read,
		writtenBytes: written,
		seconds: seconds + (read + written) / DISK_BYTES_PER_SECOND,
	};
}

/** A block forward once, forward and back for every pass, the products and factorings of its half steps. */
function secondsOfBlock(
	{ settings, hardware }: Context,
	{ linears }: BlockKind,
	tokens: number,
	passes: number,
	shared: number,
): number {
	let [products, cubes] = [0, 0];
	const outputSteps = Math.floor(settings.iterations / 2);
	const inputSteps = settings.iterations - 1 - outputSteps;
	for (const { rows, columns, tokenShare } of linears) {
		products += 2 * rows * columns * tokenShare * (1 + passes * (1 + LABEL_SAMPLES));
		products += 2 * settings.iterations * (rows * rows + columns * columns) * tokenShare;
		cubes +=
			columns ** 3 * (KERNEL_CUBES * outputSteps + TRUST_CUBES) + rows ** 3 * (KERNEL_CUBES * inputSteps + TRUST_CUBES);
	}
	return (products * tokens) / speedOf(hardware) / shared + cubes / float64SpeedOf(hardware);
}

function float64SpeedOf(hardware: Hardware): number {
	if (hardware.accelerator === null) return speedOf(hardware) * FLOAT64_SHARE_OF_A_PROCESSOR;
	const model = hardware.accelerator.model.toLowerCase();
	return FLOAT64_SPEED.find(([name]) => model.includes(name))?.[1] ?? SLOW_FLOAT64_SPEED;
}

function filesBytes({ model, settings }: Context): number {
	return (settings.variants * model.parameters * settings.bitsPerWeight) / 8;
}

function roundStage(context: Context): Bare {
	const { model, settings, device, hardware } = context;
	const linears = model.blocks.flatMap((kind) => kind.linears.map((linear) => ({ ...linear, count: kind.count })));
	const free = device === "cuda" ? context.availableBytes - context.residentBytes - OVERHEAD_BYTES.cuda : 0;
	// Those that a GPU cannot hold are rounded on the host.
	const [onGpu, onHost] = [
		linears.filter((one) => roundingBytes(one) <= free),
		linears.filter((one) => roundingBytes(one) > free),
	];
	const workOf = (some: typeof linears) =>
		some.reduce((sum, { rows, columns, count }) => sum + count * rows * columns * (rows + columns), 0);
	const onProcessor = speedOf({ ...hardware, accelerator: null }) * ROUNDING_SHARE.cpu;
	const onDevice = speedOf(hardware) * ROUNDING_SHARE[device];
	const hostBytes = Math.max(
		0,
		...onHost.map(({ rows, columns }) => ROUNDING_ON_HOST * 4 * (rows * rows + columns * columns)),
	);
	const readBytes = context.checkpointBytes + context.factorBytes;
	// Codes, and the files that are written from them.
	const writtenBytes = 2 * filesBytes(context);
	return {
		name: "round",
		deviceBytes:
			device === "cuda" ? context.residentBytes + Math.max(0, ...onGpu.map(roundingBytes)) + OVERHEAD_BYTES.cuda : 0,
		hostBytes: hostBytes + (device === "cuda" ? HOST_OVERHEAD_BYTES : context.residentBytes + OVERHEAD_BYTES.cpu),
		diskBytes: context.checkpointBytes + context.factorBytes + writtenBytes,
		readBytes,
		writtenBytes,
		seconds:
			settings.variants * 5 * (workOf(onGpu) / onDevice + workOf(onHost) / onProcessor) +
			(readBytes + writtenBytes) / DISK_BYTES_PER_SECOND,
	};
}

/** Each step reads all weights twice; besides, the original runs once. */
function tuneStage(context: Context): Bare {
	const { model, settings, device, hardware } = context;
	const elementBytes = device === "cpu" ? 4 : 2;
	const tokens = (TUNING_PASSES * settings.sequences * settings.length) / TUNING_STEPS;
	const largest = Math.max(...model.blocks.map(parametersOf));
	const widest = Math.max(...model.blocks.flatMap(({ linears }) => linears.map(({ rows, columns }) => rows * columns)));
	// A block from the checkpoint, as its codes decode, its gradients and codes; and what one linear's scales are told.
	const block = largest * (2 * elementBytes + 2) + 3 * FLOAT32_BYTES * widest;
	const bytes = context.residentBytes + block + HEAD_BYTES + OVERHEAD_BYTES[device];
	const scales = (BYTES_A_SCALE * model.parameters) / WEIGHTS_A_SCALE;
	const states = tokens * model.hidden * elementBytes * (blockCountOf(model) + 2);
	// Scales and states are read as often as they are written.
	const writtenBytes = settings.variants * TUNING_STEPS * (scales / 2 + states);
	const readBytes = settings.variants * context.checkpointBytes * (2 * TUNING_STEPS + 1);
	return {
		name: "tune",
		deviceBytes: device === "cuda" ? bytes : 0,
		hostBytes: device === "cuda" ? HOST_OVERHEAD_BYTES : bytes,
		diskBytes: context.checkpointBytes + context.factorBytes + filesBytes(context) + scales + states,
		readBytes,
		writtenBytes,
		seconds:
			(settings.variants * TUNING_STEPS * tokens * 8 * model.activeParameters) / speedOf(hardware) +
			(readBytes + 2 * writtenBytes) / DISK_BYTES_PER_SECOND,
	};
}

/**
 * The runner measures each finished variant in float32 beside what it holds of the original: whole where both fit, else
 * block by block, with the states between blocks on disk.
 */
function measureStage(context: Context): Bare {
	const { model, settings, device, hardware, availableBytes } = context;
	const finishedBytes = FLOAT32_BYTES * model.parameters;
	const isByBlocks = context.isMapped || context.residentBytes + finishedBytes > MEASURED_SHARE * availableBytes;
	const widest = Math.max(
		...model.blocks.map(({ linears }) =>
			linears.reduce((sum, { rows, columns, tokenShare }) => sum + (rows + columns) * tokenShare, 0),
		),
	);
	const decoded = FLOAT32_BYTES * Math.max(...model.blocks.map((kind) => parametersOf(kind) * decodingOf(kind)));
	const outer = model.outerParameters;
	// Of an original that is run block by block, what lies outside of the blocks is there while others are measured.
	const original = context.isMapped ? (context.wholeBytes / model.parameters) * outer : context.residentBytes;
	const ofBlocks = FLOAT32_BYTES * outer + decoded + FLOAT32_BYTES * SWEPT_TOKENS * widest;
	const bytes =
		Math.max(context.residentBytes, original + (isByBlocks ? ofBlocks : finishedBytes)) +
		2 * HEAD_BYTES +
		OVERHEAD_BYTES[device];
	const files = filesBytes(context);
	const readBytes = context.checkpointBytes * (context.isMapped ? 1 + SWEPT_GREEDY_TOKENS : 1) + files;
	const states = isByBlocks ? 2 * FLOAT32_BYTES * model.hidden * settings.evaluationTokens : 0;
	return {
		name: "measure",
		deviceBytes: device === "cuda" ? bytes : 0,
		hostBytes: device === "cuda" ? HOST_OVERHEAD_BYTES + (isByBlocks ? decoded : finishedBytes) : bytes,
		diskBytes: context.checkpointBytes + context.factorBytes + 2 * files + states,
		readBytes,
		writtenBytes: 0,
		seconds:
			(settings.evaluationTokens * 2 * model.activeParameters * (1 + 3 * settings.variants)) / speedOf(hardware) +
			readBytes / DISK_BYTES_PER_SECOND,
	};
}

/** A block's decoded weights, with the tensor that is being decoded; experts are there apart and put together. */
function decodingOf({ linears }: BlockKind): number {
	return linears.some(({ tokenShare }) => tokenShare < 1) ? 2 : 1.25;
}

/** Sizes as memories and disks are sold: binary and decimal. */
export function sized(bytes: number): string {
	return bytes >= 1e12 ? `${(bytes / 1e12).toFixed(2)} TB` : `${(bytes / 1e9).toFixed(bytes < 1e10 ? 1 : 0)} GB`;
}

function lackOf({ hardware, availableBytes }: Context, stage: Bare): string | null {
	const { diskBytes, accelerator } = hardware;
	if (accelerator !== null && stage.deviceBytes > availableBytes) {
		return `${sized(stage.deviceBytes)} of an accelerator's ${sized(availableBytes)}`;
	}
	if (stage.hostBytes > hardware.memoryBytes)
		return `${sized(stage.hostBytes)} of memory, where there are ${sized(hardware.memoryBytes)}`;
	if (diskBytes !== undefined && stage.diskBytes > diskBytes)
		return `${sized(stage.diskBytes)} of disk, where there are ${sized(diskBytes)}`;
	return null;
}

function withoutStore(context: Context, stage: StagePlan): StagePlan {
	const needed = context.checkpointBytes + storeOf(context, 1) / SWEEP.diskShare;
	return {
		...stage,
		lacks: `${sized(needed)} of disk for the weights and one sequence between blocks, where there are ${sized(context.hardware.diskBytes ?? 0)}`,
	};
}
