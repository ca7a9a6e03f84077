import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parsedRecipe } from "../../src/protocol/job-spec.ts";
import { parseRecipe, recipeDirectory, recipeHash } from "../../src/protocol/recipe.ts";
import { RECIPE_NAMES } from "../../src/protocol/recipe-table.ts";

/** The control plane's parser and the runner's are two programs: what one names, the other must find. */

const ROOT = join(import.meta.dirname, "../..");
const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");
const PROGRAM = `
import json, sys
from yaqa_runner.protocol.failures import InvalidSpec
from yaqa_runner.protocol.recipes import parse_recipe, recipe_directory, recipe_hash
answers = []
for text in json.load(sys.stdin):
    try:
        found = parse_recipe(text)
        answers.append([found.to_wire(), recipe_hash(found), recipe_directory(found.canonical)])
    except InvalidSpec as error:
        answers.append(str(error))
print(json.dumps(answers))
`;
const OPTIONS = [
	"group=32",
	"block=64",
	"group=33",
	"refine=0",
	"refine=11",
	"tune=off",
	"tune=on",
	"zero=on",
	"embedding=q8",
	"embedding=q4",
	"embedding=float",
	"embedding=q3",
	"bpw=3.50",
	"bpw=9",
	"bytes=4.5GB",
	"bytes=4500MB",
	"bytes=4.2GiB",
	"bytes=0.999TiB",
	"bytes=123456789",
	"bytes=1KiB",
	"bytes=4.5",
	"bytes=0",
	"bites=4GB",
	" group = 32",
	"",
];

/** Every name alone, with each option, and with pairs of options. */
function texts(): string[] {
	const names = [...RECIPE_NAMES.map(({ name }) => name), "gguf", "w4a17", "GGUF:Q4_0"];
	return names.flatMap((name, index) => [
		name,
		...OPTIONS.map((option) => `${name},${option}`),
		...OPTIONS.flatMap((first, place) => {
			const second = OPTIONS[(place * 7 + index) % OPTIONS.length] ?? "";
			return [`${name},${first},${second}`];
		}),
	]);
}

test("both parsers take, refuse and spell the same recipes", {
	skip: existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up",
}, () => {
	const written = texts();
	const theirs: unknown[] = JSON.parse(
		execFileSync(PYTHON, ["-c", PROGRAM], { input: JSON.stringify(written), cwd: join(ROOT, "gpu-runner") }).toString(),
	);
	const ours = written.map((text) => {
		const parsed = parseRecipe(text);
		if (!parsed.ok) return parsed.refusal.message;
		const { recipe } = parsed;
		return [parsedRecipe(recipe), recipeHash(recipe), recipeDirectory(recipe.canonical)];
	});
	for (const [index, text] of written.entries()) assert.deepEqual(ours[index], theirs[index], text);
	assert.ok(ours.filter((answer) => typeof answer !== "string").length > 150);
});
