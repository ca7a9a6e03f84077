import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import type { Configuration } from "../config/schema.ts";

const hashes = new Map<string, { readonly changed: string; readonly hash: string }>();

/** SHA-256 of a text's bytes, worked out anew when the file has changed. */
function textHash(path: string): string {
	const { mtimeMs, size } = statSync(path);
	const changed = `${mtimeMs} ${size}`;
	const known = hashes.get(path);
	if (known?.changed === changed) return known.hash;
	const hash = createHash("sha256").update(readFileSync(path)).digest("hex");
	hashes.set(path, { changed, hash });
	return hash;
}

/**
 * Names the settings that a sketch depends on, for finding it again, on whatever machine; the runner checks its own
 * fingerprint as well.
 */
export function sketchFingerprint(configuration: Configuration): string {
	const { calibration, sketch } = configuration.quantization;
	const settings = JSON.stringify([
		calibration.kind,
		calibration.files.map(textHash),
		calibration.sequences,
		calibration.length,
		calibration.seed,
		sketch.kind,
		sketch.iterations,
	]);
	return createHash("sha256").update(settings).digest("hex").slice(0, 32);
}
