import { BATCH_TOKENS, SWEEP, sketchBytes } from "../../protocol/runner-memory.ts";

/**
 * The runner's own plan of a sweep (`sketches/sweep_plan.py`), to tell it before there is a machine. Both are held to the same
 * cases, `test/contract/sweep-plans.json`.
 */

/** A linear of a block. */
export type PlannedLinear = {
	readonly rows: number;
	readonly columns: number;
	/** Linears of one block with equal names here are fed the same input, and sketched together. */
	readonly input: string;
};

type SweepRequest = {
	/** The linears of every block, or of one block of each kind that there is. */
	readonly blocks: readonly (readonly PlannedLinear[])[];
	/** Of the model, however few `blocks` stand for them. */
	readonly blockCount: number;
	/** Of hidden states, a token. */
	readonly tokenBytes: number;
	readonly sequences: number;
	readonly length: number;
	readonly labelSamples: number;
	/** What the sweep may hold beside the weights. */
	readonly budgetBytes: number;
	readonly device: "cpu" | "cuda";
	/** Free where the sketch is written. */
	readonly diskBytes: number;
};

export type SweepPlan = {
	readonly store: "memory" | "disk";
	readonly storeBytes: number;
	/** Sequences at once. */
	readonly batch: number;
	readonly activationBytes: number;
	/** What inputs, gradients and factors of a block may take at once. */
	readonly pairsBytes: number;
};

/** Linears of a block that are sketched together: from pairs that are kept, or computed anew for every half step. */
export type BlockWindow = { readonly mode: "cached" | "streaming"; readonly linears: readonly PlannedLinear[] };

/** Hidden states before every block, and gradients before and after the block at hand. */
export function storeBytesOf(
	request: Pick<SweepRequest, "blockCount" | "tokenBytes" | "sequences" | "length" | "labelSamples">,
): number {
	const levels = request.blockCount + 2 * request.labelSamples;
	return request.sequences * request.length * request.tokenBytes * levels;
}

export function planSweep(request: SweepRequest): SweepPlan {
	const { sequences, length, budgetBytes, diskBytes } = request;
	const storeBytes = storeBytesOf(request);
	const inMemory = storeBytes <= budgetBytes * SWEEP.storeShare || storeBytes > diskBytes * SWEEP.diskShare;
	const widths = request.blocks.map((linears) => linears.reduce((sum, { rows, columns }) => sum + rows + columns, 0));
	const aSequence = Math.trunc(4 * length * Math.max(...widths) * SWEEP.activationsBesides);
	const affordable = Math.max(1, Math.floor(Math.trunc(budgetBytes * SWEEP.activationsShare) / aSequence));
	const batch = Math.max(1, Math.min(sequences, Math.floor(BATCH_TOKENS[request.device] / length), affordable));
	return {
		store: inMemory ? "memory" : "disk",
		storeBytes,
		batch,
		activationBytes: batch * aSequence,
		pairsBytes: Math.trunc(budgetBytes * SWEEP.pairsShare),
	};
}

/** Bytes of the inputs and gradients of linears of one input over `tokens`. */
export function pairBytes(group: readonly PlannedLinear[], tokens: number, labelSamples: number): number {
	const rows = group.reduce((sum, linear) => sum + linear.rows, 0);
	return 4 * tokens * ((group[0]?.columns ?? 0) + labelSamples * rows);
}

/** The fewest passes over one block that take all its `linears`. */
export function windowsOf(
	linears: readonly PlannedLinear[],
	settings: {
		readonly tokens: number;
		readonly labelSamples: number;
		readonly iterations: number;
		readonly pairsBytes: number;
	},
): readonly BlockWindow[] {
	const groups = [...Map.groupBy(linears, ({ input }) => input).values()];
	const kept = (group: readonly PlannedLinear[]) => pairBytes(group, settings.tokens, settings.labelSamples);
	const factors = (group: readonly PlannedLinear[]) => group.reduce((sum, linear) => sum + sketchBytes(linear), 0);
	const cached = partsOf(groups, kept, settings.pairsBytes);
	// Linears of one input stay together, but where their factors do not fit at once.
	const apart = groups.flatMap((group) =>
		factors(group) <= settings.pairsBytes ? [group] : group.map((linear) => [linear]),
	);
	const streaming = partsOf(apart, factors, settings.pairsBytes);
	const fits = cached.every(({ bytes }) => bytes <= settings.pairsBytes);
	const mode = fits && cached.length <= streaming.length * settings.iterations ? "cached" : "streaming";
	return (mode === "cached" ? cached : streaming).map((part) => ({ mode, linears: part.groups.flat() }));
}

type Group = readonly PlannedLinear[];

/** `groups` in order, as many to a part as `budget` holds, one at least. */
function partsOf(
	groups: readonly Group[],
	bytesOf: (group: Group) => number,
	budget: number,
): readonly { readonly groups: readonly Group[]; readonly bytes: number }[] {
	const parts: { groups: Group[]; bytes: number }[] = [];
	for (const group of groups) {
		const more = bytesOf(group);
		const last = parts.at(-1);
		if (last !== undefined && last.bytes + more <= budget) {
			last.groups.push(group);
			last.bytes += more;
		} else parts.push({ groups: [group], bytes: more });
	}
	return parts;
}
