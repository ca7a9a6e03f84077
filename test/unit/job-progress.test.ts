import assert from "node:assert/strict";
import test from "node:test";
import type { JobEventRecord } from "../../src/records/job.ts";
import { foldEvent, NO_PROGRESS } from "../../src/web/job-progress.ts";

function stateRow(sequence: number, to: string, statusText: string): JobEventRecord {
	return {
		jobId: "0b6c3f0e-0000-4000-8000-000000000000",
		sequence,
		at: new Date(sequence * 1000),
		kind: "state",
		body: { from: to, to, statusText },
	};
}

test("notes within a state are kept as notes and do not repeat the state", () => {
	const rows = [
		stateRow(1, "verifying", "Verifying the staged files."),
		stateRow(2, "verifying", "gguf:q4_0: files: 2 with the sizes and sha256 of the manifest"),
		stateRow(3, "publishing", "Publishing."),
		stateRow(4, "publishing", "yaqa-bot/model-YAQA-GGUF: published as 0123456789ab."),
	];

	const progress = rows.reduce(foldEvent, NO_PROGRESS);

	assert.deepEqual(
		progress.states.map(({ state, at }) => [state, at.getTime()]),
		[
			["verifying", 1000],
			["publishing", 3000],
		],
	);
	assert.deepEqual(progress.notes, [
		"gguf:q4_0: files: 2 with the sizes and sha256 of the manifest",
		"yaqa-bot/model-YAQA-GGUF: published as 0123456789ab.",
	]);
	assert.equal(progress.lastSequence, 4);
});
