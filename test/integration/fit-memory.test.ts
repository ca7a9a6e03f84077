import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { z } from "zod";
import { type CacheType, runMemory } from "../../src/fit/memory.ts";
import { shapeOfConfig } from "../../src/fit/model-shape.ts";
import { type HollowModel, writeHollowGguf } from "../support/hollow-gguf.ts";

/** What the pages say a run takes, held against the buffers that llama.cpp itself says it makes. */

const ROOT = join(import.meta.dirname, "../..");
const run = promisify(execFile);
let folder: string;

before(async () => {
	folder = await mkdtemp(join(tmpdir(), "yaqa-fit-"));
});
after(() => rm(folder, { recursive: true, force: true }));

async function reported(path: string, cache: CacheType, contexts: readonly number[]): Promise<readonly number[]> {
	const child = join(ROOT, "test/support/llama-cpp-buffers.ts");
	const { stdout } = await run(process.execPath, [child, path, cache, ...contexts.map(String)], { timeout: 120_000 });
	return z
		.array(z.number())
		.length(contexts.length)
		.parse(JSON.parse(stdout.trim().split("\n").at(-1) ?? ""));
}

/** The configuration that goes with a hollow file. */
function configOf(model: HollowModel): unknown {
	const gemma = model.architecture === "gemma3";
	return {
		architectures: [gemma ? "Gemma3ForCausalLM" : "LlamaForCausalLM"],
		model_type: gemma ? "gemma3_text" : "llama",
		hidden_size: model.hidden,
		intermediate_size: model.feedForward,
		num_hidden_layers: model.layers,
		num_attention_heads: model.heads,
		num_key_value_heads: model.keyValueHeads,
		head_dim: model.headWidth,
		vocab_size: model.vocabulary,
		max_position_embeddings: 131_072,
		...(model.window === undefined ? {} : { sliding_window: model.window }),
	};
}

const SMOLLM2: HollowModel = {
	architecture: "llama",
	vocabulary: 49_152,
	hidden: 576,
	layers: 30,
	feedForward: 1_536,
	heads: 9,
	keyValueHeads: 3,
	headWidth: 64,
};
const GEMMA_3: HollowModel = {
	architecture: "gemma3",
	vocabulary: 32_000,
	hidden: 640,
	layers: 18,
	feedForward: 2_048,
	heads: 4,
	keyValueHeads: 1,
	headWidth: 256,
	window: 512,
};

const CASES: readonly { readonly name: string; readonly model: HollowModel; readonly cache: CacheType }[] = [
	{ name: "SmolLM2-135M", model: SMOLLM2, cache: "f16" },
	{ name: "SmolLM2-135M with a cache of 8 bits", model: SMOLLM2, cache: "q8_0" },
	{ name: "a Gemma 3, whose windows keep a short cache", model: GEMMA_3, cache: "f16" },
];

for (const { name, model, cache } of CASES) {
	test(`${name}: memory at three contexts is within 10 % of what llama.cpp reports`, async () => {
		const path = join(folder, "hollow.gguf");
		const bytes = writeHollowGguf(path, model);
		const contexts = [512, 4_096, 8_192];
		const shape = shapeOfConfig(configOf(model));
		assert.ok(shape);
		const found = await reported(path, cache, contexts);
		for (const [index, context] of contexts.entries()) {
			const said = runMemory(bytes, shape, { container: "gguf", context, cache }).total;
			const truth = found[index] ?? 0;
			assert.ok(Math.abs(said / truth - 1) < 0.1, `at ${context}: said ${said}, llama.cpp ${truth}`);
		}
	});
}

test("the demo's model: memory at three contexts is within 10 % of what llama.cpp reports", async () => {
	const config: unknown = JSON.parse(await readFile(join(ROOT, "demo/model/config.json"), "utf8"));
	const shape = shapeOfConfig(config);
	assert.ok(shape);
	const path = join(folder, "demo.gguf");
	const bytes = writeHollowGguf(path, {
		architecture: "llama",
		vocabulary: 4_096,
		hidden: 256,
		layers: 6,
		feedForward: 768,
		heads: 4,
		keyValueHeads: 2,
		headWidth: 64,
	});
	const contexts = [512, 2_048, 8_192];
	const found = await reported(path, "f16", contexts);
	for (const [index, context] of contexts.entries()) {
		const said = runMemory(bytes, shape, { container: "gguf", context, cache: "f16" }).total;
		const truth = found[index] ?? 0;
		assert.ok(Math.abs(said / truth - 1) < 0.1, `at ${context}: said ${said}, llama.cpp ${truth}`);
	}
});
