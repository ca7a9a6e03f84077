import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import sourceFiles from "../../config/source-files.json" with { type: "json" };
import { Container } from "../../src/protocol/recipe-table.ts";
import { isCopied, isOfKind, isPickle, isPublishable } from "../../src/protocol/source-files.ts";

/** Which files of a source count is one table; the runner's package holds a copy of it. */

const ROOT = join(import.meta.dirname, "../..");
const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");
const CONTAINERS = Container.options;
const KINDS = ["configuration", "weights", "tokenizer", "generation", "processor", "licence", "card"] as const;
const PROGRAM = `
import json, sys
from yaqa_runner.model.source_files import SOURCE_PATTERNS, copied_patterns, is_listed, publishable_patterns
containers, paths = json.load(sys.stdin)
print(json.dumps([
    [is_listed(path, SOURCE_PATTERNS)]
    + [[is_listed(path, copied_patterns(name)), is_listed(path, publishable_patterns(name))] for name in containers]
    for path in paths
]))
`;

/** A file of every pattern, and what only looks like one. */
function paths(): string[] {
	const patterns = [
		...Object.values(sourceFiles.files).flat(),
		...Object.values(sourceFiles.containers).flatMap(({ written }) => written),
	];
	const named = patterns.map((pattern) => pattern.replaceAll("*", "name-00001.of_2"));
	const strange = ["modeling.py", "pytorch_model.bin", "additional_chat_templates/a/b.jinja", ".jinja", "config_json"];
	return [...new Set([...named, ...named.flatMap((path) => [`x${path}`, `${path}x`, `folder/${path}`]), ...strange])];
}

test("control plane and runner look at, take along and publish the same files", {
	skip: existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up",
}, () => {
	const asked = paths();
	const theirs: unknown[] = JSON.parse(
		execFileSync(PYTHON, ["-c", PROGRAM], {
			input: JSON.stringify([CONTAINERS, asked]),
			cwd: join(ROOT, "gpu-runner"),
		}).toString(),
	);
	for (const [index, path] of asked.entries()) {
		const ours = [
			isOfKind(path, ...KINDS),
			...CONTAINERS.map((container) => [isCopied(container, path), isPublishable(container, path)]),
		];
		assert.deepEqual(theirs[index], ours, path);
	}
});

test("what a container takes along may be published, and everything that is looked at has a use", () => {
	const used = new Set<string>(["weights", "card"]);
	for (const container of CONTAINERS) {
		for (const kind of sourceFiles.containers[container].copied) used.add(kind);
	}
	assert.deepEqual([...used].toSorted(), Object.keys(sourceFiles.files).toSorted());
	for (const path of sourceFiles.vocabularies) assert.ok(sourceFiles.files.tokenizer.includes(path), path);
	for (const path of ["LICENCE", "LICENSE.md", "USE_POLICY.txt"]) {
		for (const container of CONTAINERS) assert.ok(isCopied(container, path) && isPublishable(container, path), path);
	}
	assert.ok(isCopied("onnx", "additional_chat_templates/tool_use.jinja"));
	assert.ok(!isCopied("gguf", "additional_chat_templates/tool_use.jinja"), "a GGUF file has templates inside");
	assert.ok(isPickle("weights/Model.PTH"));
	assert.ok(!isPublishable("gptq", "model.bin"));
});
