import type { Estimate } from "../protocol/manifest.ts";
import type { ModelShape } from "../protocol/model-shape.ts";
import type { Container } from "../protocol/recipe-table.ts";
import { type CacheType, longestContext, type RunMemory, runMemory } from "./memory.ts";

/** A published file, or folder of files, that somebody may choose. */
export type FitCandidate = {
	readonly container: Container;
	readonly recipe: string;
	readonly weights: number;
	readonly shape: ModelShape | null;
	readonly klNats: Estimate | null;
};

export type Fitted<Candidate> = {
	readonly candidate: Candidate;
	readonly memory: RunMemory;
	/** `null`: no memory was named. */
	readonly fits: boolean | null;
	/** Within the memory that was named, at most what the model was trained for. */
	readonly longestContext: number | null;
};

/** `rows`: what fits first, the nearest to the original before the others; then what does not, the smallest first. */
export type FileChoice<Candidate> = {
	readonly recommended: Fitted<Candidate> | null;
	readonly rows: readonly Fitted<Candidate>[];
};

function klOf(candidate: FitCandidate): number {
	return candidate.klNats?.mean ?? Number.POSITIVE_INFINITY;
}

/** The file to take: of those that fit, the one that measured nearest to the original. */
export function chooseFile<Candidate extends FitCandidate>(
	candidates: readonly Candidate[],
	asked: { readonly memory: number | null; readonly context: number; readonly cache: CacheType },
): FileChoice<Candidate> {
	const { memory, context, cache } = asked;
	const rows = candidates.map((candidate): Fitted<Candidate> => {
		const { container, weights, shape } = candidate;
		const needed = runMemory(weights, shape, { container, context, cache });
		return {
			candidate,
			memory: needed,
			fits: memory === null ? null : needed.total <= memory,
			longestContext: memory === null ? null : longestContext(weights, shape, { container, cache, memory }),
		};
	});
	const sorted = rows.toSorted((one, other) => {
		if (one.fits !== other.fits) return Number(other.fits) - Number(one.fits);
		const nearer = klOf(one.candidate) - klOf(other.candidate);
		if (one.fits !== false && nearer !== 0 && !Number.isNaN(nearer)) return nearer;
		return one.memory.total - other.memory.total || one.candidate.recipe.localeCompare(other.candidate.recipe);
	});
	const [first] = sorted;
	return { recommended: first?.fits === true ? first : null, rows: sorted };
}
