import memory from "../../config/memory.json" with { type: "json" };

/** What the runner plans to hold, from the table that it reads itself. */

type Shape = { readonly rows: number; readonly columns: number };

/** Tokens of one of its batches, by kind of device. */
export const BATCH_TOKENS: Readonly<Record<"cpu" | "cuda", number>> = memory.batchTokens;

/** Shares of memory and disk that its sweep over a model's blocks takes. */
export const SWEEP: Readonly<typeof memory.sweep> = memory.sweep;

/** Of a device's memory: what a model may take that is there whole; larger ones are loaded block by block. */
export const RESIDENT_SHARE: number = memory.residentShare;

/** Of a device's memory: what the original and a finished model may take that is measured whole beside it. */
export const MEASURED_SHARE: number = memory.measuredShare;

/** Of a host's memory: the runner with its libraries, before any model is there. */
export const PROCESS_BYTES: number = memory.processBytes;

/** Bytes of one linear's factors while a sketch gathers them: float32 squares of its two sides. */
export function sketchBytes({ rows, columns }: Shape): number {
	return 4 * (memory.sketchSquares.input * columns * columns + memory.sketchSquares.output * rows * rows);
}

/** Bytes of one linear that is rounded on a GPU. */
export function roundingBytes({ rows, columns }: Shape): number {
	const { squares, factoringSquares, weights } = memory.gpuRounding;
	const factors = 4 * (rows * rows + columns * columns);
	return Math.trunc(Math.max(factoringSquares * factors, squares * factors + weights * 4 * rows * columns));
}

/** Bytes that one linear's factors take besides while a sketch weighs tokens by them: a float64 square of the wider side. */
export function factoringBytes({ rows, columns }: Shape): number {
	return memory.factoringSquares * 4 * Math.max(rows, columns) ** 2;
}

/** Bytes of a symmetric float32 matrix as a sketch's files keep it. */
export function triangleBytes(size: number): number {
	return 2 * size * (size + 1);
}
