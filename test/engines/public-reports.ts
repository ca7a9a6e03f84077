import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { isImportance } from "../../src/protocol/importance-file.ts";
import { HARMLESS_KINDS } from "../../src/verify/llama-cpp-checks.ts";
import { judgeWithLlamaCpp, type LlamaCppMeasurement } from "../../src/verify/llama-cpp-judge.ts";
import { PYTHON, type QuantizeAnswer, quantize, ROOT, runProgram } from "../support/quantize-command.ts";

/**
 * Models of kinds that public bug reports describe, through `yaqa-bot quantize`: each is refused by name, or llama.cpp
 * computes the original's distribution and cuts text into its tokens. The original is what transformers alone computes,
 * without anything of the runner.
 */

/** `refused`: with a message that matches. `equal`: in the engine. `either`. */
type Outcome = "refused" | "equal" | "either";
type Case = { readonly outcome: Outcome; readonly refusal: RegExp; readonly recipe?: string };
const CASES: Readonly<Record<string, Case>> = {
	activation: { outcome: "refused", refusal: /relu|activation|llama\.cpp computes another distribution/i },
	"own-head": { outcome: "equal", refusal: /lm_head|tied|output layer/i },
	"stale-index": { outcome: "equal", refusal: /index/i },
	"index-of-absent-shards": { outcome: "equal", refusal: /index/i },
	"vocabulary-and-merges": { outcome: "either", refusal: /tokenizer\.json|vocab\.json|merges\.txt/ },
	"tokenizer-model-only": { outcome: "either", refusal: /tokenizer\.json|tokenizer\.model/ },
	"unknown-split": { outcome: "refused", refusal: /pre-?tokeni[sz]er|tokens|split/i },
	lowercase: { outcome: "refused", refusal: /normali[sz]e|tokens/i },
	"word-level": { outcome: "refused", refusal: /WordLevel|tokeni[sz]er|llama\.cpp/i },
	"added-tokens-in-config": { outcome: "equal", refusal: /added_tokens|tokens/i },
	"attention-bias": { outcome: "refused", refusal: /bias|llama\.cpp/i },
	"sliding-window": { outcome: "either", refusal: /window|llama\.cpp computes another distribution/i },
	"yarn-factors": { outcome: "equal", refusal: /yarn|rope/i },
	"dropped-scales": { outcome: "either", refusal: /weight_scale_inv|float8|F8_E4M3/i },
	"vision-tower": { outcome: "equal", refusal: /vision|gemma3/i },
	"merge-order": { outcome: "equal", refusal: /merge|tokens/i },
	"underflowing-scales": { outcome: "refused", refusal: /scale|half precision|does not compute the original/i },
	"fused-experts": { outcome: "equal", refusal: /expert/i, recipe: "w4a16,group=32,tune=off,refine=0" },
	adapter: { outcome: "refused", refusal: /adapter/i },
	"no-opening-token": { outcome: "equal", refusal: /bos|begins/i },
};
const DEFAULT_RECIPE = "gguf:q8_0,tune=off,refine=0";
const LIMITS = { milliseconds: 120_000, memoryBytes: 4e9, threads: 1 } as const;
/** 8 bits of weights and of activations cost these models 0.002 nats at most. */
const EQUAL_KL_NATS = 0.01;
/** 4 bits of a random model. */
const SANE_KL_NATS = 1;

let folder = "";

function refusalOf(answer: QuantizeAnswer): string | null {
	if ("error" in answer) return answer.error.message;
	const failed = answer.variants.find(({ verified }) => !verified);
	return failed === undefined ? null : (failed.checks.findLast((check) => check.startsWith("failed: ")) ?? "failed");
}

/** What llama.cpp makes of the finished file, against transformers' own word. */
async function inTheEngine(
	answer: Extract<QuantizeAnswer, { variants: unknown }>,
	name: string,
): Promise<LlamaCppMeasurement> {
	const [variant] = answer.variants;
	const file = variant?.files.find(({ path }) => path.endsWith(".gguf") && !isImportance(path));
	assert.ok(variant !== undefined && file !== undefined);
	const verdict = await judgeWithLlamaCpp({
		modelPath: join(variant.directory, file.path),
		verificationPath: join(folder, name, "reference.safetensors"),
		limits: LIMITS,
	});
	assert.ok(verdict.kind === "measured", JSON.stringify(verdict));
	return verdict.measurement;
}

/** The tests of the kinds that are wanted, or of all. */
export function describePublicReports(wanted: readonly string[] = Object.keys(CASES)): void {
	for (const name of wanted) assert.ok(name in CASES, name);
	describe("models of kinds that public bug reports describe", { concurrency: 2 }, () => {
		before(async () => {
			folder = await mkdtemp(join(tmpdir(), "yaqa-reports-"));
			const made = await runProgram(PYTHON, [join(ROOT, "test/engines/make_cases.py"), folder]);
			assert.equal(made.code, 0, made.errors);
		});
		after(() => rm(folder, { recursive: true, force: true }));

		for (const [name, { outcome, refusal, recipe }] of Object.entries(CASES)) {
			if (!wanted.includes(name)) continue;
			test(`${name}: ${outcome === "either" ? "refused by name, or equal" : outcome}`, async (context) => {
				const missing = join(folder, name, "missing.txt");
				if (existsSync(missing)) {
					context.skip(`no package ${await readFile(missing, "utf8")} to make it with`);
					return;
				}
				const work = join(folder, name, "work");
				await mkdir(work);
				const answer = await quantize({
					model: join(folder, name, "model"),
					recipes: [recipe ?? DEFAULT_RECIPE],
					work,
				});
				const why = refusalOf(answer);
				if (why !== null) {
					assert.notEqual(outcome, "equal", `refused: ${why}`);
					assert.match(why, refusal);
					return;
				}
				assert.notEqual(outcome, "refused", "it was not refused");
				assert.ok("variants" in answer);
				if (recipe !== undefined) {
					assert.ok((answer.variants[0]?.klNats?.mean ?? Number.NaN) < SANE_KL_NATS);
					return;
				}
				const measurement = await inTheEngine(answer, name);
				for (const { klNats } of measurement.sequences)
					assert.ok(klNats < EQUAL_KL_NATS, `${klNats} nats in llama.cpp`);
				assert.ok(measurement.tokenizer !== null);
				const grave = measurement.tokenizer.different.filter(({ kind }) => !HARMLESS_KINDS.has(kind));
				assert.deepEqual(grave, []);
				assert.equal(measurement.tokenizer.opening, null);
				assert.equal(measurement.tokenizer.end, null);
			});
		}
	});
}
