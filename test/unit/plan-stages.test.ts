import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { EXIT_CODES } from "../../src/cli/exit-codes.ts";
import { planConfiguration } from "../../src/cli/plan-configuration.ts";
import { ConfigurationFile } from "../../src/config/schema.ts";
import { blocksOfConfig, type ConfiguredModel } from "../../src/jobs/estimate/blocks-of-config.ts";
import type { Hardware } from "../../src/jobs/estimate/hardware.ts";
import { type MachineStages, planStages, type StageSettings } from "../../src/jobs/estimate/plan-stages.ts";
import { JOB_HARDWARE } from "../../src/local-hub/job-hardware.ts";
import { hardwareOfHub } from "../../src/server/machines.ts";

const SETTINGS: StageSettings = {
	sequences: 128,
	length: 256,
	iterations: 6,
	evaluationTokens: 16_384,
	variants: 3,
	bitsPerWeight: 4.5,
};
const MACHINES = hardwareOfHub(JOB_HARDWARE);

function documentOf(name: string): unknown {
	return JSON.parse(readFileSync(join(import.meta.dirname, `../fixtures/configs/${name}.json`), "utf8"));
}

function modelOf(document: unknown): ConfiguredModel {
	const read = blocksOfConfig(document);
	assert.ok(read.ok, read.ok ? "" : read.message);
	return read.model;
}

function machine(flavor: string, diskBytes: number): Hardware {
	const found = MACHINES.find((one) => one.flavor === flavor);
	assert.ok(found !== undefined);
	return { ...found, diskBytes };
}

function stage(plan: MachineStages, name: string): MachineStages["stages"][number] {
	const found = plan.stages.find((one) => one.name === name);
	assert.ok(found !== undefined);
	return found;
}

const LLAMA_8B = {
	model_type: "llama",
	hidden_size: 4096,
	num_hidden_layers: 32,
	num_attention_heads: 32,
	num_key_value_heads: 8,
	intermediate_size: 14_336,
	vocab_size: 128_256,
};

const LLAMA_70B = {
	...LLAMA_8B,
	hidden_size: 8192,
	num_hidden_layers: 80,
	num_attention_heads: 64,
	intermediate_size: 28_672,
};

test("published configurations have their published numbers of parameters", () => {
	const near = (found: number, billions: number) => assert.ok(Math.abs(found / 1e9 / billions - 1) < 0.01, `${found}`);
	near(modelOf(documentOf("Llama-3.1-405B")).parameters, 405.9);
	const mixture = modelOf(documentOf("DeepSeek-V3"));
	near(mixture.parameters, 671);
	assert.equal(Math.round(mixture.activeParameters / 1e9), 37);
	assert.deepEqual(
		mixture.blocks.map(({ count, linears }) => [count, linears.length]),
		[
			[3, 8],
			[58, 5 + 3 * 257],
		],
	);
	near(modelOf(LLAMA_8B).parameters, 8.03);
	// GPT-2 names sizes otherwise, ties its output layer, and has one matrix before the activation.
	near(modelOf({ model_type: "gpt2", n_embd: 768, n_layer: 12, n_head: 12, vocab_size: 50_257 }).parameters, 0.1235);
});

test("a 405B's job is done on one H200 or one GPU of 80 GB with enough disk", () => {
	const model = modelOf(documentOf("Llama-3.1-405B"));
	const large = planStages(model, SETTINGS, machine("h200", 6e12));
	assert.equal(large.store, "disk");
	assert.equal(large.storeBytes, 128 * 256 * 2 * 16_384 * (126 + 2));
	assert.deepEqual(
		large.stages.map(({ name, lacks }) => [name, lacks]),
		["fetch", "sketch", "round", "tune", "measure"].map((name) => [name, null]),
	);
	// Every weight is read twice, and every factor written once.
	assert.ok(stage(large, "sketch").readBytes > 2 * 2 * model.parameters);
	// Eight steps of two sweeps, and the original once, for every variant.
	assert.equal(stage(large, "tune").readBytes, 3 * 17 * 2 * model.parameters);
	assert.ok(!planStages(modelOf(LLAMA_8B), SETTINGS, machine("h200", 1e12)).stages.some(({ name }) => name === "tune"));
	// A block of a variant at a time, in float32.
	const block =
		4 *
		model.blocks.reduce((sum, { linears }) => sum + linears.reduce((all, one) => all + one.rows * one.columns, 0), 0);
	assert.ok(stage(large, "measure").deviceBytes > block && stage(large, "measure").deviceBytes < 86e9);
	// Two linears of one input do not fit together there, and are taken one after the other.
	const small = planStages(model, SETTINGS, machine("a100-large", 6e12));
	assert.ok(small.stages.every(({ lacks }) => lacks === null));
	// The widest one's factors twice, and nine matrices of its shape.
	const widest = 2 * 4 * (53_248 ** 2 + 16_384 ** 2) + 9 * 4 * 53_248 * 16_384;
	assert.ok(stage(small, "round").deviceBytes > widest && stage(small, "round").deviceBytes < 80e9);
	// What a smaller one cannot hold is rounded on its host, which takes its time.
	const tight = planStages(model, SETTINGS, machine("l40sx1", 6e12));
	const factors = 4 * (53_248 ** 2 + 16_384 ** 2);
	assert.ok(stage(tight, "round").hostBytes > 3 * factors, `${stage(tight, "round").hostBytes}`);
	assert.ok(stage(tight, "round").seconds > 10 * stage(small, "round").seconds);
	assert.match(stage(planStages(model, SETTINGS, machine("h200", 2e12)), "sketch").lacks ?? "", /TB of disk/);
});

test("experts' factors fill the disk, not the accelerator", () => {
	const plan = planStages(modelOf(documentOf("DeepSeek-V3")), SETTINGS, machine("a100-large", 12e12));
	const sketch = stage(plan, "sketch");
	assert.equal(sketch.lacks, null);
	assert.ok(sketch.diskBytes > 6e12 && sketch.deviceBytes < 86e9, `${sketch.diskBytes} ${sketch.deviceBytes}`);
	// All experts of a block, put together in float32 to be measured.
	assert.match(stage(plan, "measure").lacks ?? "", /^1\d\d GB of an accelerator's 86 GB$/);
	const large = planStages(modelOf(documentOf("DeepSeek-V3")), SETTINGS, machine("h200", 12e12));
	assert.ok(large.stages.every(({ lacks }) => lacks === null));
});

test("a disk too small for all sequences has fewer of them, and one that holds none is refused with the number", () => {
	const model = modelOf(LLAMA_8B);
	const settings = { ...SETTINGS, sequences: 1024, length: 2048 };
	const weights = 2 * model.parameters;
	const aSequence = 2048 * 2 * 4096 * (32 + 2);
	const some = planStages(model, settings, { ...machine("h200", weights + 1001 * aSequence), memoryBytes: 1e9 });
	assert.equal(some.sequences, 800);
	assert.equal(some.storeBytes, 800 * aSequence);
	const none = planStages(model, settings, { ...machine("h200", weights + aSequence), memoryBytes: 1e9 });
	assert.equal(none.sequences, 0);
	assert.match(stage(none, "sketch").lacks ?? "", /^17 GB of disk for the weights and one sequence between blocks/);
});

test("a model's job is done on the cheapest machine that does every stage, and the JSON says so", () => {
	const [out, err]: [string[], string[]] = [[], []];
	const terminal = {
		out: (text: string) => void out.push(text),
		err: (text: string) => void err.push(text),
		isScreen: false,
		columns: () => 80,
	};
	const options = {
		name: "config.json",
		document: LLAMA_70B,
		variants: 3,
		sequences: null,
		length: null,
		disk: "4TB",
		json: true,
		configuration: ConfigurationFile.parse({}),
		machines: MACHINES,
	};
	assert.equal(planConfiguration(options, terminal), 0);
	const told = JSON.parse(out.join("")) as { ok: boolean; assumptions: string[]; machines: Record<string, unknown>[] };
	const fitting = told.machines.filter((one) => one["fits"] === true);
	assert.ok(told.ok && fitting.length > 0 && fitting.length < MACHINES.length);
	const prices = fitting.map((one) => Number(one["microUsd"]));
	assert.equal(told.machines[0]?.["microUsd"], Math.min(...prices));
	assert.ok(told.assumptions.some((one) => /assumed, not measured/.test(one)));
	assert.match(err.join(""), /does every stage, at the lowest price/);
	for (const wrong of [{ disk: "much" }, { sequences: "0" }, { length: "1e9" }]) {
		assert.equal(planConfiguration({ ...options, ...wrong }, terminal), EXIT_CODES.usage.code);
	}
});

test("what a configuration does not tell, or tells absurdly, is refused", () => {
	const message = (document: unknown) => {
		const read = blocksOfConfig(document);
		return read.ok ? "" : read.message;
	};
	assert.match(message([]), /no JSON object/);
	assert.match(message({ ...LLAMA_8B, hidden_size: 1e9 }), /hidden_size/);
	assert.match(message({ ...LLAMA_8B, intermediate_size: null }), /feed-forward/);
	assert.match(message({ ...LLAMA_8B, layer_types: ["linear_attention"] }), /linear_attention/);
	assert.match(message({ ...LLAMA_8B, num_experts: 4096, num_experts_per_tok: 8 }), /parameters/);
});
