import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { type PlannedLinear, planSweep, windowsOf } from "../../src/jobs/estimate/sweep-plan.ts";

/** The runner is held to the same cases, by gpu-runner/tests/test_sweep_plan.py. */

const Case = z.object({
	name: z.string(),
	blocks: z.array(z.array(z.object({ times: z.int(), linears: z.array(z.tuple([z.int(), z.int(), z.string()])) }))),
	blockCount: z.int(),
	tokenBytes: z.int(),
	sequences: z.int(),
	length: z.int(),
	iterations: z.int(),
	labelSamples: z.int(),
	budgetBytes: z.int(),
	device: z.enum(["cpu", "cuda"]),
	diskBytes: z.int(),
	expected: z.object({
		store: z.string(),
		storeBytes: z.int(),
		batch: z.int(),
		activationBytes: z.int(),
		pairsBytes: z.int(),
		windows: z.array(z.array(z.tuple([z.string(), z.int()]))),
	}),
});
const CASES = z
	.array(Case)
	.min(5)
	.parse(JSON.parse(readFileSync(join(import.meta.dirname, "sweep-plans.json"), "utf8")));

function linearsOf(parts: z.infer<typeof Case>["blocks"][number]): readonly PlannedLinear[] {
	return parts.flatMap(({ times, linears }, part) =>
		Array.from({ length: times }, (_, time) =>
			linears.map(([rows, columns, input]) => ({ rows, columns, input: `${part}.${time}.${input}` })),
		).flat(),
	);
}

for (const example of CASES) {
	test(`the plan is the runner's own: ${example.name}`, () => {
		const blocks = example.blocks.map(linearsOf);
		const plan = planSweep({ ...example, blocks });
		const settings = {
			tokens: example.sequences * example.length,
			labelSamples: example.labelSamples,
			iterations: example.iterations,
			pairsBytes: plan.pairsBytes,
		};
		const windows = blocks.map((linears) =>
			windowsOf(linears, settings).map(({ mode, linears: members }) => [mode, members.length]),
		);
		assert.deepEqual({ ...plan, windows }, example.expected);
	});
}
