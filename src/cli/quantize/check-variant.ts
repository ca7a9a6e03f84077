import { existsSync } from "node:fs";
import { readdir, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import type { Configuration } from "../../config/schema.ts";
import { MANIFEST_NAME } from "../../protocol/read-manifest.ts";
import { type Recipe, recipeDirectory } from "../../protocol/recipe.ts";
import { manifestOf } from "../../verify/manifest-checks.ts";
import { verifyVariant } from "../../verify/verify-variant.ts";
import { EXIT_CODES } from "../exit-codes.ts";
import type { ProgressDisplay } from "../progress-display.ts";
import { reportVariant, type VariantReport } from "../variant-lines.ts";
import { interrupted, Stopped } from "./stopped.ts";

/** Puts a finished folder in its place. One that an earlier run left there gives way; anything else is not touched. */
async function place(from: string, to: string): Promise<void> {
	if (existsSync(to)) {
		const isOurs = existsSync(join(to, MANIFEST_NAME)) || (await readdir(to)).length === 0;
		if (!isOurs) {
			throw new Stopped(EXIT_CODES.failed.code, {
				code: "target-taken",
				message: `${to} exists and was not made by yaqa-bot.`,
				remedy: "Move it away, or choose another --output.",
			});
		}
		await rm(to, { recursive: true });
	}
	await rename(from, to);
}

/** Verifies one variant of a finished run and puts its folder in the output, marked where it did not pass. */
export async function checkVariant(
	recipe: Recipe,
	context: {
		readonly configuration: Configuration;
		readonly staging: string;
		readonly output: string;
		/** The run's reference log-probabilities. */
		readonly verificationPath: string;
		readonly display: ProgressDisplay;
		readonly signal: AbortSignal;
	},
): Promise<VariantReport> {
	const { configuration, staging, output, verificationPath, display, signal } = context;
	if (signal.aborted) throw interrupted();
	display.step(`verify ${recipe.canonical}`);
	const folder = recipeDirectory(recipe.canonical);
	const from = join(staging, folder);
	const manifest = await manifestOf(from);
	const verification = await verifyVariant({
		directory: from,
		manifest,
		recipe,
		verificationPath: existsSync(verificationPath) ? verificationPath : null,
		policy: configuration.verification,
		limits: {
			milliseconds: 30 * 60_000,
			memoryBytes: Math.floor(totalmem() * 0.8),
			threads: availableParallelism(),
		},
		signal,
	});
	const directory = join(output, verification.ok ? folder : `${folder}.unverified`);
	if (verification.ok && verification.manifest !== manifest) {
		await writeFile(join(from, MANIFEST_NAME), `${JSON.stringify(verification.manifest, null, 2)}\n`);
	}
	await place(from, directory);
	const report = {
		manifest: verification.ok ? verification.manifest : manifest,
		directory,
		verified: verification.ok,
		checks: verification.checks,
	};
	display.step(null);
	display.say(`${verification.ok ? "✓" : "✗"} verify ${recipe.canonical}`);
	for (const check of verification.checks) display.say(`    ${check}`);
	return reportVariant(report);
}
