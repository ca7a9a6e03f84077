import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import exitCodes from "../../config/exit-codes.json" with { type: "json" };
import { RUNNER_LISTS } from "../../scripts/write-schemas.ts";
import { FailureCode } from "../../src/protocol/events.ts";
import { RUNNER_EXIT_CODES } from "../../src/protocol/runner-exit-codes.ts";
import { BATCH_TOKENS, roundingBytes, sketchBytes } from "../../src/protocol/runner-memory.ts";

/** What a run died of and what it holds are known on both sides from one table; the runner's package has a copy. */

const ROOT = join(import.meta.dirname, "../..");
const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");
const SKIP = existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up";
const SHAPES = [
	{ rows: 4096, columns: 4096 },
	{ rows: 1024, columns: 4096 },
	{ rows: 4096, columns: 14_336 },
];
const PROGRAM = `
import json, sys
from types import SimpleNamespace
from yaqa_runner.protocol.failures import EXIT_CODES
from yaqa_runner.rounding.memory import layers_on_gpu
from yaqa_runner.sketches.memory import BATCH_TOKENS, streaming_bytes
print(json.dumps({
    "exitCodes": EXIT_CODES,
    "batchTokens": BATCH_TOKENS,
    "sketch": [streaming_bytes(SimpleNamespace(**shape)) for shape in json.loads(sys.argv[1])],
    "inFlight": [
        [layers_on_gpu([(rows, columns)], free) for free in (3 * one - 1, 3 * one)]
        for rows, columns, one in json.loads(sys.argv[2])
    ],
}))
`;

for (const name of RUNNER_LISTS) {
	test(`the runner's package holds config/${name} as it stands`, () => {
		assert.equal(
			readFileSync(join(ROOT, "gpu-runner/yaqa_runner/config", name), "utf8"),
			readFileSync(join(ROOT, "config", name), "utf8"),
			"npm run schemas copies it",
		);
	});
}

test("every failure of the protocol has an exit status, and nothing else has", () => {
	assert.deepEqual(Object.keys(exitCodes).toSorted(), FailureCode.options.toSorted());
	assert.ok(
		Object.values(exitCodes).every((code) => code > 0 && code < 126),
		"0 is success, 126 and up the shell's",
	);
});

test("the runner ends with the statuses that the control plane reads, and holds what it plans for", {
	skip: SKIP,
}, () => {
	const inFlight = SHAPES.map((shape) => [shape.rows, shape.columns, roundingBytes(shape)]);
	const answer: unknown = JSON.parse(
		execFileSync(PYTHON, ["-c", PROGRAM, JSON.stringify(SHAPES), JSON.stringify(inFlight)], {
			cwd: join(ROOT, "gpu-runner"),
		}).toString(),
	);
	assert.deepEqual(answer, {
		exitCodes: RUNNER_EXIT_CODES,
		batchTokens: BATCH_TOKENS,
		sketch: SHAPES.map(sketchBytes),
		inFlight: SHAPES.map(() => [2, 3]),
	});
});
