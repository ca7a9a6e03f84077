import type { Hardware } from "./hardware.ts";
import { type MeasuredRate, measuredRate } from "./measured-rates.ts";
import { GIB, memoryOf } from "./memory.ts";
import { type JobWorkload, STAGES, workOf } from "./workload.ts";

/** Loading, calibration text, files: what does not grow with the work. */
const FIXED_SECONDS = 60;
/** Bytes a second from the Hub or a disk, at which sources are loaded. */
export const LOAD_BYTES_PER_SECOND = 200_000_000;
/** Several accelerators share out the sketch's sequences, not the model; of their number, what that is worth. */
export const PARALLEL_SHARE = 0.9;

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

/** Memory that merging an adapter takes, as a share of its base's weights. */
const MERGE_SHARE = 1.1;

const UNKNOWN_ACCELERATOR_SPEED = 20e12;
const SPEED_PER_CORE = 15e9;

/**
 * Rounding settles element after element: it reaches this share of the speed of plain matrix products. On CUDA by all
 * linears of an 8B Llama in 169 s on an H200.
 */
export const ROUNDING_SHARE = { cpu: 0.5, cuda: 0.01 } as const;

export type MachineEstimate = {
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

export function speedOf(hardware: Hardware): number {
	const { accelerator } = hardware;
	if (accelerator === null) return hardware.cores * SPEED_PER_CORE;
	const model = accelerator.model.toLowerCase();
	return ACCELERATOR_SPEED.find(([name]) => model.includes(name))?.[1] ?? UNKNOWN_ACCELERATOR_SPEED;
}

export function estimateOn(
	workload: JobWorkload,
	hardware: Hardware,
	rates: readonly MeasuredRate[],
	limitMinutes: number,
): MachineEstimate {
	const device = hardware.accelerator === null ? "cpu" : "cuda";
	const neededBytes = memoryOf(workload, device);
	const { accelerator } = hardware;
	const availableBytes = accelerator === null ? hardware.memoryBytes : accelerator.bytesEach;
	const processes = accelerator === null || accelerator.count === 1 ? 1 : accelerator.count * PARALLEL_SHARE;
	// What a GPU computes is read and written through the machine's own memory.
	// An adapter is merged onto its whole base there.
	const hostShare = workload.facts.base == null ? 0.5 : MERGE_SHARE;
	const hostFits = accelerator === null || hardware.memoryBytes >= workload.facts.weightBytes * hostShare + 4 * GIB;
	const work = workOf(workload);
	const speed = speedOf(hardware);
	let seconds = FIXED_SECONDS + workload.facts.weightBytes / LOAD_BYTES_PER_SECOND;
	let isLearned = false;
	for (const stage of STAGES) {
		const measured = measuredRate(rates, stage, hardware);
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
