import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseFile } from "../../src/fit/choose-file.ts";
import { parseContext, readFitQuestion } from "../../src/fit/fit-question.ts";
import { HARDWARE_NAMES } from "../../src/fit/hardware.ts";
import { runMemory, weightFiles } from "../../src/fit/memory.ts";
import { shapeOfConfig } from "../../src/fit/model-shape.ts";
import { EIGHT_BILLION } from "../support/web-fixtures.ts";

const QUESTIONS: readonly (readonly [string, number, number | null, string])[] = [
	["which fits 8 GB at 8k", 8e9, 8_192, "8 GB"],
	["8gb 8192 tokens", 8e9, 8_192, "8 GB"],
	["fits 12GB at 4096", 12e9, 4_096, "12 GB"],
	["24G ctx=16k", 24e9, 16_384, "24 GB"],
	["16 GiB", 2 ** 34, null, "17.2 GB"],
	["RTX 4090", 24e9, null, "RTX 4090 with 24 GB"],
	["rtx4090 at 32k", 24e9, 32_768, "RTX 4090 with 24 GB"],
	["NVIDIA GeForce RTX 4060 Ti 16 GB", 16e9, null, "RTX 4060 Ti with 16 GB"],
	["2x RTX 3090", 48e9, null, "2 × RTX 3090 with 24 GB"],
	["M3 Pro 36 GB", 27e9, null, "Apple M3 Pro with 36 GB, of which macOS lets the graphics have 27 GB"],
	["RX 7900 XTX", 24e9, null, "RX 7900 XTX with 24 GB"],
];

for (const [text, memory, context, machine] of QUESTIONS) {
	test(`the question ${JSON.stringify(text)} is read`, () => {
		const reading = readFitQuestion(text);
		assert.ok(reading.ok, JSON.stringify(reading));
		assert.deepEqual(
			[reading.question.memory, reading.question.context, reading.question.machine],
			[memory, context, machine],
		);
	});
}

test("a cache's type is read, and what is no question says what helps", () => {
	const reading = readFitQuestion("24 GB at 32k q8_0 cache");
	assert.equal(reading.ok && reading.question.cache, "q8_0");
	for (const text of ["", "RTX 9999", "0 GB", "\0".repeat(50), `${"9".repeat(400)} GB`, "8 GB <script>"]) {
		const misread = readFitQuestion(text);
		assert.equal(misread.ok, false, text);
		assert.ok(!misread.ok && misread.message.length < 250);
	}
});

test("contexts are tokens, with k as 1024", () => {
	assert.deepEqual(["8k", "32K", "4096", "0.5k", "1M"].map(parseContext), [8_192, 32_768, 4_096, 512, 1_048_576]);
	assert.deepEqual(["", "0", "-1", "8kk", "1e99", "999999999"].map(parseContext), Array(6).fill(null));
});

test("the Hub's list of hardware is here, and every name on it is understood", () => {
	assert.ok(HARDWARE_NAMES.length > 150);
	const misread = HARDWARE_NAMES.filter((name) => {
		const reading = readFitQuestion(name);
		return !reading.ok || !reading.question.machine.includes(name);
	});
	assert.deepEqual(misread, []);
});

test("Llama 3.1 8B keeps 128 KiB of cache a token, as is known of it", () => {
	const config = {
		architectures: ["LlamaForCausalLM"],
		model_type: "llama",
		hidden_size: 4_096,
		intermediate_size: 14_336,
		num_hidden_layers: 32,
		num_attention_heads: 32,
		num_key_value_heads: 8,
		vocab_size: 128_256,
		max_position_embeddings: 131_072,
	};
	const shape = shapeOfConfig(config);
	assert.deepEqual(shape, EIGHT_BILLION);
	const memory = runMemory(0, shape, { container: "gguf", context: 8_192, cache: "f16" });
	assert.equal(memory.cache, 8_192 * 131_072);
	assert.equal(runMemory(0, shape, { container: "gguf", context: 8_192, cache: "q8_0" }).cache, memory.cache * 0.53125);
});

test("windows, states and compressed caches are told from the configuration", () => {
	const base = {
		hidden_size: 2_048,
		num_hidden_layers: 12,
		num_attention_heads: 16,
		num_key_value_heads: 2,
		head_dim: 256,
		vocab_size: 150_000,
	};
	const layersOf = (config: object) =>
		shapeOfConfig({ ...base, ...config })?.attention.map((group) => [group.layers, group.window]);
	assert.deepEqual(layersOf({ model_type: "gemma3_text", sliding_window: 512 }), [
		[2, null],
		[10, 512],
	]);
	assert.deepEqual(layersOf({ model_type: "gemma2", sliding_window: 4_096 }), [
		[6, null],
		[6, 4_096],
	]);
	assert.deepEqual(layersOf({ model_type: "mistral", sliding_window: 4_096 }), [[12, 4_096]]);
	assert.deepEqual(layersOf({ model_type: "qwen2", sliding_window: 4_096, use_sliding_window: false }), [[12, null]]);
	assert.deepEqual(
		layersOf({ model_type: "qwen2", sliding_window: 4_096, use_sliding_window: true, max_window_layers: 8 }),
		[
			[8, null],
			[4, 4_096],
		],
	);
	const types = Array.from({ length: 12 }, (_, index) =>
		(index + 1) % 4 === 0 ? "full_attention" : "linear_attention",
	);
	const hybrid = shapeOfConfig({
		...base,
		layer_types: types,
		linear_num_value_heads: 32,
		linear_num_key_heads: 16,
		linear_key_head_dim: 128,
		linear_value_head_dim: 128,
		linear_conv_kernel_dim: 4,
	});
	assert.deepEqual(hybrid?.attention, [{ layers: 3, keyWidth: 512, valueWidth: 512, window: null }]);
	assert.equal(hybrid?.stateWidth, 9 * (32 * 128 * 128 + 3 * (2 * 16 * 128 + 32 * 128)));
	const latent = shapeOfConfig({ ...base, kv_lora_rank: 512, qk_rope_head_dim: 64 });
	assert.deepEqual(latent?.attention, [{ layers: 12, keyWidth: 576, valueWidth: 0, window: null }]);
	assert.equal(
		shapeOfConfig({ ...base, layer_types: Array(12).fill("hyena") }),
		null,
		"an unknown kind is not guessed",
	);
	assert.equal(shapeOfConfig({ ...base, hidden_size: -1 }), null);
	assert.equal(shapeOfConfig("text"), null);
	assert.equal(shapeOfConfig({ model_type: "outer", text_config: base })?.layers, 12);
});

test("llama.cpp keeps whole texts where it does not know the window", () => {
	const group = { layers: 12, keyWidth: 512, valueWidth: 512, window: 512 };
	const settings = { container: "gguf", context: 32_768, cache: "f16" } as const;
	const mistral = { ...EIGHT_BILLION, architecture: "MistralForCausalLM", attention: [group] };
	const gemma = { ...mistral, architecture: "Gemma3ForCausalLM" };
	assert.equal(runMemory(0, mistral, settings).cache, 12 * 32_768 * 2_048);
	assert.equal(runMemory(0, gemma, settings).cache, 12 * 1_280 * 2_048);
});

const candidate = (recipe: string, weights: number, kl: number) =>
	({ container: "gguf", recipe, weights, shape: EIGHT_BILLION, klNats: { mean: kl, standardError: 0 } }) as const;

test("the recommended file is the nearest to the original of those that fit", () => {
	const files = [candidate("small", 3e9, 0.3), candidate("middle", 4.9e9, 0.02), candidate("large", 8.5e9, 0.001)];
	const at8 = chooseFile(files, { memory: 8e9, context: 8_192, cache: "f16" });
	assert.equal(at8.recommended?.candidate.recipe, "middle");
	assert.deepEqual(
		at8.rows.map((row) => row.candidate.recipe),
		["middle", "small", "large"],
	);
	const { longestContext } = at8.rows[0] ?? {};
	assert.ok(longestContext != null && longestContext > 8_192);
	const atLongest = (context: number) => runMemory(4.9e9, EIGHT_BILLION, { container: "gguf", context, cache: "f16" });
	assert.ok(atLongest(longestContext).total <= 8e9);
	assert.ok(atLongest(longestContext + 1_024).total > 8e9);
	assert.equal(chooseFile(files, { memory: 1e9, context: 8_192, cache: "f16" }).recommended, null);
	assert.equal(
		chooseFile(files, { memory: 1e12, context: 8_192, cache: "f16" }).recommended?.candidate.recipe,
		"large",
	);
	assert.equal(chooseFile([], { memory: 8e9, context: 8_192, cache: "f16" }).recommended, null);
});

test("companions and what is no weight are not counted", () => {
	const file = (path: string) => ({ path, size: 1, sha256: "a".repeat(64) });
	const files = ["m-Q4_0.gguf", "mmproj-m.gguf", "config.json", "onnx/model.onnx", "onnx/model.onnx_data", "LICENSE"];
	assert.deepEqual(
		weightFiles({ files: files.map(file) }).map(({ path }) => path),
		["m-Q4_0.gguf", "onnx/model.onnx", "onnx/model.onnx_data"],
	);
});
