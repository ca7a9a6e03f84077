import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { SUPPORTED_ARCHITECTURES } from "../../src/verify/architectures.ts";
import { folderSourceReader } from "../../src/verify/folder-source-reader.ts";
import { inspectFiles } from "../../src/verify/inspect-files.ts";
import { PYTHON, ROOT, runProgram } from "../support/quantize-command.ts";

/** The bot takes what the runner takes: a checkpoint of each architecture, as transformers stores it, passes the bot's look. */

const SKIP = existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up";
const PROGRAM = `
import json, sys
from pathlib import Path
sys.path.insert(0, "gpu-runner/tests")
from quantized_originals import STORED
from tiny_architectures import tiny_model
from tiny_kinds import KINDS
folder, wanted = Path(sys.argv[1]), set(json.loads(sys.argv[2]))
made = {}
for kind in KINDS:
    try:
        model = tiny_model(kind)
    except Exception:  # A kind whose configuration cannot be made this small; what is taken has to be among the others.
        continue
    if type(model).__name__ in wanted:
        model.save_pretrained(folder / kind)
        STORED.get(kind.partition(":")[2], str)(folder / kind)
        for name in ("tokenizer.json", "preprocessor_config.json"):
            (folder / kind / name).write_text("{}")
        made[kind] = type(model).__name__
print(json.dumps(made))
`;

test("every architecture that is taken passes the bot's look as transformers stores it", { skip: SKIP }, async (t) => {
	const folder = await mkdtemp(join(tmpdir(), "yaqa-architectures-"));
	t.after(() => rm(folder, { recursive: true, force: true }));
	const { code, out, errors } = await runProgram(PYTHON, [
		"-c",
		PROGRAM,
		folder,
		JSON.stringify(SUPPORTED_ARCHITECTURES),
	]);
	assert.equal(code, 0, errors.slice(-2000));
	const made = z.record(z.string(), z.string()).parse(JSON.parse(out.trim().split("\n").at(-1) ?? ""));
	assert.deepEqual([...new Set(Object.values(made))].toSorted(), [...SUPPORTED_ARCHITECTURES].toSorted());
	const refused: string[] = [];
	for (const [kind, architecture] of Object.entries(made)) {
		const found = await inspectFiles(await folderSourceReader(join(folder, kind)), { maximumWeightBytes: 1e9 });
		if (!found.ok) refused.push(`${kind}: ${found.refusal.message}`);
		else if (found.inspected.architecture !== architecture || found.inspected.linears.length === 0) refused.push(kind);
	}
	assert.deepEqual(refused, []);
});

test("the recipe page lists them", () => {
	const page = readFileSync(join(ROOT, "docs/recipes.md"), "utf8");
	assert.deepEqual(
		SUPPORTED_ARCHITECTURES.filter((name) => !page.includes(`\`${name}\``)),
		[],
	);
});
