import { lstat, readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { fileSha256 } from "../hub/file-hash.ts";
import { ownBytes } from "../protocol/importance-file.ts";
import type { Manifest, Quantizer } from "../protocol/manifest.ts";
import { MANIFEST_NAME, readManifest } from "../protocol/read-manifest.ts";
import { parsedRecipes, type Recipe } from "../protocol/recipe.ts";
import type { Container } from "../protocol/recipe-table.ts";
import { isPublishable } from "../protocol/source-files.ts";

/** A check that did not hold. The message names the file and what is wrong with it. */
export class CheckFailure extends Error {
	override readonly name = "CheckFailure";
	/** What to do about it, where another run would not mend it. */
	readonly remedy: string | null;
	constructor(message: string, remedy: string | null = null) {
		super(message);
		this.remedy = remedy;
	}
}

export function assertCheck(holds: boolean, message: string): asserts holds {
	if (!holds) throw new CheckFailure(message);
}

/** The manifest of a folder whose files are checked against it. */
export async function manifestOf(directory: string): Promise<Manifest> {
	const read = await readManifest(directory);
	assertCheck(read.ok, `the folder's ${MANIFEST_NAME} ${read.ok ? "" : read.problem}`);
	return read.manifest;
}

/** What the manifest says of itself: figures that cannot all be true are refused before they stand on a card. */
export function checkManifestConsistency(manifest: Manifest, recipe: Recipe): void {
	assertCheck(
		// The name may be an earlier version's.
		parsedRecipes([manifest.recipe])[0]?.canonical === recipe.canonical,
		`the manifest is of the recipe ${manifest.recipe}, not ${recipe.canonical}`,
	);
	assertCheck(manifest.gate.winner === manifest.quantizer, "the published quantizer is not the one that won the gate");
	const chosen = manifest.gate.selection.find((entry) => entry.quantizer === manifest.quantizer);
	assertCheck(chosen !== undefined, "the gate did not measure the published quantizer");
	for (const entry of manifest.gate.selection) {
		assertCheck(
			chosen.klNats.mean <= entry.klNats.mean || mayTie(chosen, entry),
			`the gate chose ${manifest.quantizer}, but measured a lower KL for ${entry.quantizer}`,
		);
	}
	const measured = manifest.evaluation.measured;
	const published = measured.find((entry) => entry.quantizer === manifest.quantizer);
	assertCheck(published !== undefined, "the published quantizer was not measured on the report split");
	assertCheck(
		new Set(measured.map((entry) => entry.quantizer)).size === measured.length,
		"a quantizer is measured twice",
	);
	for (const entry of measured) {
		const { klNats } = entry.report;
		assertCheck(klNats.mean >= 0, `the KL of ${entry.quantizer} is negative`);
		assertCheck(entry.bytes === published.bytes, `${entry.quantizer} was measured at another size`);
	}
	const bytes = ownBytes(manifest);
	assertCheck(
		bytes === published.bytes,
		`the files take ${bytes} bytes, the manifest's measurement says ${published.bytes}`,
	);
	const paths = manifest.files.map((file) => file.path.toLowerCase());
	assertCheck(new Set(paths).size === paths.length, "two files have the same name, or names that differ only in case");
}

type GateRow = Manifest["gate"]["selection"][number];

/** What rests on the sketch, from what took most of the calibration text to what took least. */
const SKETCHED: readonly Quantizer[] = ["two-sided-tuned", "two-sided", "two-sided-cautious"];

/**
 * Whether the gate may have chosen `chosen` although `lower` has the lower KL. The standard error of their difference,
 * which decides, is not in the manifest; it is at most the sum of theirs.
 */
function mayTie(chosen: GateRow, lower: GateRow): boolean {
	const [own, other] = [SKETCHED.indexOf(chosen.quantizer), SKETCHED.indexOf(lower.quantizer)];
	const behind = chosen.klNats.mean - lower.klNats.mean;
	return own !== -1 && own < other && behind <= chosen.klNats.standardError + lower.klNats.standardError;
}

/** Every file of the folder is in the manifest with its size and hash, is of an allowed type, and nothing is missing. */
export async function checkManifestFiles(directory: string, manifest: Manifest, container: Container): Promise<void> {
	const listed = new Map(manifest.files.map((file) => [file.path, file]));
	const entries = await readdir(directory, { recursive: true, withFileTypes: true });
	const present = new Set<string>();
	for (const entry of entries) {
		if (entry.isDirectory()) continue;
		const path = relative(directory, join(entry.parentPath, entry.name)).split(sep).join("/");
		assertCheck(entry.isFile(), `${path} is not a plain file`);
		if (path === MANIFEST_NAME) continue;
		assertCheck(listed.has(path), `${path} is not in the manifest`);
		assertCheck(isPublishable(container, path), `${path} is not a kind of file that this variant may hold`);
		present.add(path);
	}
	for (const file of manifest.files) {
		assertCheck(present.has(file.path), `${file.path} is missing`);
		const path = join(directory, file.path);
		const { size } = await lstat(path);
		assertCheck(size === file.size, `${file.path} has ${size} bytes, the manifest says ${file.size}`);
		assertCheck((await fileSha256(path)) === file.sha256, `${file.path} has another sha256 than the manifest says`);
	}
}
