import type { Handle } from "../database.ts";

export type Migration = {
	readonly version: number;
	readonly name: string;
	readonly statements: readonly string[];
	/** Fills what only the program can compute, in the same transaction, after the statements. */
	readonly fill?: (tx: Handle) => Promise<void>;
};
