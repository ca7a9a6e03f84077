import { z } from "zod";
import { assertCheck } from "./manifest-checks.ts";
import { allFinite, type SafetensorsFile } from "./read-safetensors.ts";
import type { TensorInfo } from "./safetensors-header.ts";

/** FP4 and FP8 weights of compressed-tensors, by the names of their recipes. */
export const FLOAT_FORMS = {
	nvfp4: { format: "nvfp4-pack-quantized", strategy: "tensor_group", group: 16, packed: ".weight_packed" },
	mxfp4: { format: "mxfp4-pack-quantized", strategy: "group", group: 32, packed: ".weight_packed" },
	fp8: { format: "float-quantized", strategy: "channel", group: null, packed: ".weight_scale" },
} as const;
export type FloatName = keyof typeof FLOAT_FORMS;

export function isFloatName(name: string): name is FloatName {
	return Object.hasOwn(FLOAT_FORMS, name);
}

/** What `config.json` says of such weights. */
export const FloatWeights = z.looseObject({
	num_bits: z.int(),
	type: z.literal("float"),
	symmetric: z.literal(true),
	strategy: z.enum(["tensor_group", "group", "channel"]),
	group_size: z.int().nullable(),
});

/** E4M3 has no infinity; all ones below the sign is no number. */
const E4M3_NAN = 0x7f;
/** E8M0 has no sign and no zero; all ones is no number. */
const E8M0_NAN = 0xff;
const SIGN = 0x80;
type Check = (file: SafetensorsFile, tensor: TensorInfo, layer: string) => Promise<void>;

/**
 * Types, shapes and ranges of one linear's tensors, and that it holds numbers. `dividers` gathers the number that NVFP4's
 * scales of each layer are divided by.
 */
export function floatCheck(
	name: FloatName,
	shapes: ReadonlyMap<string, readonly number[]>,
	dividers: Map<string, number>,
): Check {
	return async (file, tensor, layer) => {
		const [rows = 0, columns = 0] = shapes.get(layer) ?? [];
		switch (name) {
			case "nvfp4":
				checkCodes(tensor, rows, columns);
				await checkBytes(file, layer, { dtype: "F8_E4M3", shape: [rows, columns / 16], isNumber: isPositiveE4M3 });
				dividers.set(layer, await divider(file, layer));
				return;
			case "mxfp4":
				checkCodes(tensor, rows, columns);
				await checkBytes(file, layer, {
					dtype: "U8",
					shape: [rows, columns / 32],
					isNumber: (byte) => byte !== E8M0_NAN,
				});
				return;
			case "fp8":
				await checkFloat8(file, tensor, layer, rows, columns);
		}
	};
}

/** Servers fuse the linears of a module, and take one divider for all of them: the largest. */
export function checkSharedDividers(dividers: ReadonlyMap<string, number>): void {
	const ofModule = new Map<string, number>();
	for (const [layer, value] of dividers) {
		const module = layer.split(".").slice(0, -1).join(".");
		const known = ofModule.get(module) ?? value;
		assertCheck(known === value, `${layer} divides its scales by ${value}, another linear of ${module} by ${known}`);
		ofModule.set(module, known);
	}
}

function checkCodes(packed: TensorInfo, rows: number, columns: number): void {
	assertCheck(
		packed.dtype === "U8" && packed.shape.join() === `${rows},${columns / 2}`,
		`${packed.name} is ${packed.dtype} ${packed.shape.join(" × ")}, which ${rows} × ${columns} weights of 4 bits do not give`,
	);
}

async function checkBytes(
	file: SafetensorsFile,
	layer: string,
	wanted: {
		readonly dtype: string;
		readonly shape: readonly number[];
		readonly isNumber: (byte: number) => boolean;
	},
): Promise<void> {
	const scale = file.header.tensors.get(`${layer}.weight_scale`);
	assertCheck(scale !== undefined, `${layer} lacks its scale`);
	assertCheck(
		scale.dtype === wanted.dtype && scale.shape.join() === wanted.shape.join(),
		`${scale.name} is ${scale.dtype} ${scale.shape.join(" × ")}, not ${wanted.dtype} ${wanted.shape.join(" × ")}`,
	);
	assertCheck(
		(await file.read(scale)).every(wanted.isNumber),
		`${scale.name} holds a value that is no positive number`,
	);
}

function isPositiveE4M3(byte: number): boolean {
	return byte < E4M3_NAN;
}

async function divider(file: SafetensorsFile, layer: string): Promise<number> {
	const tensor = file.header.tensors.get(`${layer}.weight_global_scale`);
	assertCheck(
		tensor !== undefined && tensor.dtype === "F32" && tensor.shape.join() === "1",
		`${layer} lacks weight_global_scale, one number of 32 bits`,
	);
	const bytes = await file.read(tensor);
	const value = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat32(0, true);
	assertCheck(Number.isFinite(value) && value > 0, `${tensor.name} is ${value}, no positive number`);
	return value;
}

async function checkFloat8(
	file: SafetensorsFile,
	scale: TensorInfo,
	layer: string,
	rows: number,
	columns: number,
): Promise<void> {
	const weight = file.header.tensors.get(`${layer}.weight`);
	assertCheck(
		weight !== undefined && weight.dtype === "F8_E4M3" && weight.shape.join() === `${rows},${columns}`,
		`${layer} holds no ${rows} × ${columns} weights of F8_E4M3`,
	);
	assertCheck(
		["F16", "BF16", "F32"].includes(scale.dtype) && scale.shape.join() === `${rows},1`,
		`${scale.name} is ${scale.dtype} ${scale.shape.join(" × ")}, not one number a row`,
	);
	assertCheck(allFinite(await file.read(scale), scale.dtype), `${scale.name} holds a value that is not finite`);
	assertCheck(
		(await file.read(weight)).every((byte) => (byte & ~SIGN) !== E4M3_NAN),
		`${weight.name} holds a value that is no number`,
	);
}
