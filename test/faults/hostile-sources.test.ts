import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { venvPython } from "../../demo/stack.ts";
import { HOSTILE_SOURCES } from "./hostile-sources.ts";
import { lookOver } from "./look-over.ts";

const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";

/** The short form of `npm run test:hostile`. */
test("hostile sources are refused by name or do nothing, within their bounds, in both languages", {
	skip,
}, async () => {
	assert.ok(HOSTILE_SOURCES.length >= 40);
	const verdicts = await lookOver(HOSTILE_SOURCES.filter((source) => source.short === true));
	assert.ok(verdicts.length >= 10);
	assert.deepEqual(
		verdicts.flatMap(({ name, problem }) => (problem === null ? [] : [`${name}: ${problem}`])),
		[],
	);
});
