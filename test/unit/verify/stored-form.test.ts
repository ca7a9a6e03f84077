import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { TensorInfo } from "../../../src/verify/safetensors-header.ts";
import { decodedTensors, type StoredForm, storedFormOf } from "../../../src/verify/stored-form.ts";

/** What official float8 and mxfp4 releases stand for, told from their headers; what does not add up is named. */

type Stored = Readonly<Record<string, readonly [dtype: string, ...shape: number[]]>>;

function headers(stored: Stored): ReadonlyMap<string, TensorInfo> {
	return new Map(
		Object.entries(stored).map(([name, [dtype, ...shape]]) => {
			const elements = shape.reduce((product, size) => product * size, 1);
			return [name, { name, dtype, shape, start: 0, end: elements * (/^(?:F8|U8|I8)/.test(dtype) ? 1 : 2) }];
		}),
	);
}

const FLOAT8: StoredForm = { name: "float8", block: [32, 32] };
const LINEAR = {
	norm: ["BF16", 64],
	"up.weight": ["F8_E4M3", 70, 64],
	"up.weight_scale_inv": ["F32", 3, 2],
} satisfies Stored;
const EXPERTS = {
	norm: ["BF16", 64],
	"experts.down_proj_blocks": ["U8", 4, 64, 3, 16],
	"experts.down_proj_scales": ["U8", 4, 64, 3],
} satisfies Stored;

function refusedFor(form: StoredForm | null, stored: Stored): string {
	const found = decodedTensors(form, headers(stored));
	assert.ok(!found.ok);
	return found.message;
}

describe("how weights are stored", () => {
	const formOf = (quantization_config: unknown) => storedFormOf({ quantization_config });
	test("plain, float8 in blocks, float8 by whole matrices, mxfp4", () => {
		assert.deepEqual(formOf(undefined), { form: null });
		assert.deepEqual(formOf({ quant_method: "fp8", fmt: "e4m3", weight_block_size: [32, 32] }), { form: FLOAT8 });
		assert.deepEqual(formOf({ quant_method: "fp8" }), { form: { name: "float8", block: [128, 128] } });
		assert.deepEqual(formOf({ quant_method: "fp8", weight_block_size: null }), {
			form: { name: "float8", block: null },
		});
		assert.deepEqual(formOf({ quant_method: "mxfp4" }), { form: { name: "mxfp4" } });
	});
	test("in another form, which is named", () => {
		for (const quant_method of ["awq", "gptq", "bitsandbytes", "compressed-tensors", "modelopt"]) {
			assert.deepEqual(formOf({ quant_method }), { quantizedBy: quant_method });
		}
		assert.deepEqual(formOf({ quant_method: "fp8", fmt: "e5m2" }), { quantizedBy: "fp8" });
		assert.deepEqual(formOf({ quant_method: "fp8", weight_block_size: [0, 128] }), { quantizedBy: "fp8" });
		assert.deepEqual(formOf("awq"), { quantizedBy: null });
		assert.deepEqual(storedFormOf({ text_config: { quantization_config: { quant_method: "fp8" } } }), {
			quantizedBy: "text_config",
		});
	});
});

describe("what stored tensors stand for", () => {
	test("float8: the weights alone, in 16 bits", () => {
		const found = decodedTensors(FLOAT8, headers({ ...LINEAR, "up.activation_scale": ["F32", 1] }));
		assert.ok(found.ok);
		assert.deepEqual([...found.tensors.keys()].toSorted(), ["norm", "up.weight"]);
		assert.equal(found.bytes, 2 * (64 + 70 * 64));
	});
	test("mxfp4: experts of inputs by outputs", () => {
		const found = decodedTensors({ name: "mxfp4" }, headers(EXPERTS));
		assert.ok(found.ok);
		assert.deepEqual(found.tensors.get("experts.down_proj")?.shape, [4, 96, 64]);
		assert.equal(found.bytes, 2 * (64 + 4 * 96 * 64));
	});
	for (const [name, form, stored, says] of [
		["float8 of which nothing tells", null, { "up.weight": ["F8_E4M3", 70, 64] }, /up\.weight.* stored as F8_E4M3/],
		["float8 without scales", FLOAT8, { ...LINEAR, "down.weight": ["F8_E4M3", 64, 64] }, /down\.weight.*no scales/],
		["scales beside 16 bits", FLOAT8, { ...LINEAR, "down.weight_scale_inv": ["F32", 2, 2] }, /belongs to no float8/],
		["scales of other blocks", FLOAT8, { ...LINEAR, "up.weight_scale_inv": ["F32", 2, 2] }, /blocks of 32 × 32/],
		["integers among float8", FLOAT8, { ...LINEAR, "down.weight": ["I8", 64, 64] }, /down\.weight.*I8, which is not/],
		["a form that is not there", FLOAT8, { "up.weight": ["BF16", 70, 64] }, /stored as float8, and none is/],
		["mxfp4 without scales", { name: "mxfp4" }, { "e.down_proj_blocks": ["U8", 4, 64, 3, 16] }, /no scales/],
		[
			"mxfp4 beside the same in 16 bits",
			{ name: "mxfp4" },
			{ ...EXPERTS, "experts.down_proj": ["BF16", 4, 96, 64] },
			/there twice/,
		],
	] as const satisfies readonly (readonly [string, StoredForm | null, Stored, RegExp])[]) {
		test(`${name}: refused`, () => assert.match(refusedFor(form, stored), says));
	}
});
