import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseGGUFQuantLabel } from "@huggingface/gguf";
import { RECIPE_NAMES, RECIPES } from "../../src/protocol/recipe-table.ts";

/** The Hub's tag, its hardware panel and its snippets go by the label that its own parser finds in a file's name. */

const ROOT = join(import.meta.dirname, "../..");
const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");
const PROGRAM = `
import json, sys
from yaqa_runner.formats import container_for
from yaqa_runner.formats.gguf.blocks import GGUF_TYPES
from yaqa_runner.formats.gguf.container import GgufContainer
from yaqa_runner.protocol.recipes import parse_recipe
labels = {}
for text in json.load(sys.stdin):
    recipe = parse_recipe(text)
    container = container_for(recipe)
    kinds = GGUF_TYPES if recipe.is_mixed else [container.type]
    labels[text] = [GgufContainer(kind, mix=container.mix, budget=container.budget).label for kind in kinds]
print(json.dumps(labels))
`;

test("the Hub's parser reads the label of every recipe's file, whatever types a budget leads to", {
	skip: existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up",
}, () => {
	const names = RECIPE_NAMES.filter(({ container }) => container === "gguf").map(({ name }) => name);
	const budgets = [...RECIPES.mixed.examples, "gguf,bpw=2", "gguf,bytes=123456789"];
	const labels: Record<string, string[]> = JSON.parse(
		execFileSync(PYTHON, ["-c", PROGRAM], {
			input: JSON.stringify([...names, ...budgets]),
			cwd: join(ROOT, "gpu-runner"),
		}).toString(),
	);
	for (const name of names) {
		const [label] = labels[name] ?? [];
		assert.equal(parseGGUFQuantLabel(`Some-Model-7B-${label}.gguf`), name.replace("gguf:", "").toUpperCase());
		assert.equal(parseGGUFQuantLabel(`Some-Model-7B-${label}-00001-of-00002.gguf`), label);
	}
	for (const budget of budgets) {
		assert.ok((labels[budget] ?? []).length > 1, budget);
		for (const label of labels[budget] ?? []) {
			assert.match(parseGGUFQuantLabel(`Some-Model-7B-${label}.gguf`) ?? "", /^Q\d_K_XL$/, label);
		}
	}
});
