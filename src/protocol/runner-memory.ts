import memory from "../../config/memory.json" with { type: "json" };

/** What the runner plans to hold, from the table that it reads itself. */

type Shape = { readonly rows: number; readonly columns: number };

/** Tokens of one of its batches, by kind of device. */
export const BATCH_TOKENS: Readonly<Record<"cpu" | "cuda", number>> = memory.batchTokens;

/** Bytes of one linear's factors while a sketch gathers them: float32 squares of its two sides. */
export function sketchBytes({ rows, columns }: Shape): number {
	return 4 * (memory.sketchSquares.input * columns * columns + memory.sketchSquares.output * rows * rows);
}

/** Bytes of one linear that is rounded on a GPU. */
export function roundingBytes({ rows, columns }: Shape): number {
	return memory.roundingSquares * 4 * (rows * rows + columns * columns);
}
