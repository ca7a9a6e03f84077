/** A source's files: those of a Hub repo at one commit, or of a folder. */
export type SourceFile = { readonly path: string; readonly size: number };

export type SourceReader = {
	readonly files: readonly SourceFile[];
	/** Bytes `start` to `end` (exclusive, within the file). Throws `SourceAccessError` when the file may not be read. */
	read(path: string, start: number, end: number): Promise<Uint8Array>;
};

/** The repo can be seen but this file of it may not be read: gated, or the token lacks the right. */
export class SourceAccessError extends Error {
	override readonly name = "SourceAccessError";
}
