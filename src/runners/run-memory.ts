import { totalmem } from "node:os";
import process from "node:process";

const SHARE = 0.9;

/** How much a run may hold: a file that makes a library take all of it must not take the bot's part. */
export function runMemoryBytes(configured: number | null): number {
	// A container's own limit, where it has one.
	const constrained = process.constrainedMemory();
	const machine = constrained > 0 ? Math.min(totalmem(), constrained) : totalmem();
	return configured ?? Math.floor(machine * SHARE);
}
