import { BATCH_TOKENS, roundingBytes, sketchBytes } from "../../protocol/runner-memory.ts";
import { type JobWorkload, linearsOf } from "./workload.ts";

export const GIB = 1024 ** 3;

/** Code, libraries, fragmentation, and what a device's driver keeps. */
export const OVERHEAD_BYTES = { cpu: 1.5 * GIB, cuda: 2.5 * GIB } as const;

const DEFAULT_VOCABULARY = 128_000;

/** Bytes that a job holds at once on a device. */
export function memoryOf(workload: JobWorkload, device: "cpu" | "cuda"): number {
	const { facts } = workload;
	// On the CPU weights are held in float32, on a GPU as they are stored.
	const weights = device === "cpu" ? 4 * facts.parameters : facts.weightBytes;
	let factors = 0;
	let rounding = 0;
	for (const linear of linearsOf(facts)) {
		// A window holds one block at least: each shape about as often as it occurs in one.
		const inBlock = Math.max(1, linear.count / Math.max(1, blocksOf(facts)));
		factors += inBlock * sketchBytes(linear);
		if (device === "cuda") rounding = Math.max(rounding, roundingBytes(linear));
	}
	const logits = BATCH_TOKENS[device] * (facts.vocabulary ?? DEFAULT_VOCABULARY) * (device === "cpu" ? 8 : 6);
	const sketching = factors + Math.min(logits, 24 * GIB);
	return Math.ceil(weights * 1.05 + Math.max(sketching, rounding) + OVERHEAD_BYTES[device]);
}

function blocksOf(facts: JobWorkload["facts"]): number {
	const counts = linearsOf(facts).map((linear) => linear.count);
	return Math.min(...counts);
}
