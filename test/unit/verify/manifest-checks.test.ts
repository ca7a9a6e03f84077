import assert from "node:assert/strict";
import { test } from "node:test";
import type { Manifest, Quantizer } from "../../../src/protocol/manifest.ts";
import { checkManifestConsistency } from "../../../src/verify/manifest-checks.ts";
import { recipeOf } from "../../support/recipe-of.ts";
import { readTinyManifest, TINY_RECIPES } from "../../support/tiny-variants.ts";

const RECIPE = TINY_RECIPES[0];

/** The manifest of a variant that `winner` is, at `means` on the selection text, each give or take .01. */
async function chosen(winner: Quantizer, means: Partial<Record<Quantizer, number>>): Promise<Manifest> {
	const manifest = structuredClone(await readTinyManifest(RECIPE));
	const [published] = manifest.evaluation.measured;
	assert(published !== undefined);
	manifest.evaluation.measured = [{ ...published, quantizer: winner }];
	manifest.quantizer = winner;
	manifest.gate.winner = winner;
	manifest.gate.selection = Object.entries(means).map(([quantizer, mean]) => ({
		quantizer: quantizer as Quantizer,
		klNats: { mean, standardError: 0.01 },
	}));
	return manifest;
}

test("of what the selection text may not tell apart, the gate may choose what took most from calibration", async () => {
	const recipe = recipeOf(RECIPE);
	const refused = /measured a lower KL/;
	const tied = { "two-sided-tuned": 0.115, "two-sided": 0.1 } as const;
	checkManifestConsistency(await chosen("two-sided-tuned", tied), recipe);
	checkManifestConsistency(await chosen("two-sided", tied), recipe);
	for (const [winner, means] of [
		["two-sided-tuned", { "two-sided-tuned": 0.121, "two-sided": 0.1 }],
		["two-sided-cautious", { "two-sided-cautious": 0.115, "two-sided": 0.1 }],
		["two-sided", { "two-sided": 0.115, "one-sided": 0.1 }],
	] as const) {
		const manifest = await chosen(winner, means);
		assert.throws(() => checkManifestConsistency(manifest, recipe), refused);
	}
});
