import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFile, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { ConfigurationFile } from "../../../src/config/schema.ts";
import { ownBytes } from "../../../src/protocol/importance-file.ts";
import { Manifest } from "../../../src/protocol/manifest.ts";
import type { ChildLimits } from "../../../src/verify/limited-child.ts";
import { onnxKl } from "../../../src/verify/onnx-kl.ts";
import { type VariantVerification, verifyVariant } from "../../../src/verify/verify-variant.ts";
import { recipeOf } from "../../support/recipe-of.ts";
import {
	MORE_TINY_RECIPES,
	readTinyManifest,
	TINY_RECIPES,
	TINY_VERIFICATION,
	type TinyRecipe,
	tinyDirectory,
	withCopy,
} from "../../support/tiny-variants.ts";

const POLICY = ConfigurationFile.parse({}).verification;
const LIMITS: ChildLimits = { milliseconds: 60_000, memoryBytes: 4e9, threads: 1 };

/** Breaks a copy, then verifies it. `manifest` true: the manifest is written anew to agree with what the files became. */
async function verifyBroken(
	recipe: TinyRecipe,
	breakIt: (directory: string, manifest: Manifest) => Promise<Manifest | undefined>,
	options: { readonly rehash?: boolean; readonly limits?: ChildLimits } = {},
): Promise<VariantVerification> {
	return withCopy(recipe, async (directory) => {
		let manifest = structuredClone(await readTinyManifest(recipe));
		manifest = (await breakIt(directory, manifest)) ?? manifest;
		if (options.rehash === true) {
			for (const file of manifest.files) {
				const bytes = await readFile(join(directory, file.path));
				file.size = bytes.byteLength;
				file.sha256 = createHash("sha256").update(bytes).digest("hex");
			}
			const bytes = ownBytes(manifest);
			for (const measured of manifest.evaluation.measured) measured.bytes = bytes;
		}
		await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
		return verifyVariant({
			directory,
			manifest,
			recipe: recipeOf(recipe),
			verificationPath: TINY_VERIFICATION,
			policy: POLICY,
			limits: options.limits ?? LIMITS,
		});
	});
}

function assertRefused(result: VariantVerification, pattern: RegExp): void {
	assert.equal(result.ok, false);
	assert.equal(result.refusal.code, "verification-failed");
	assert.match(result.refusal.message, pattern);
	assert.notEqual(result.refusal.remedy, "");
}

/** A linear that the file does not hold. */
async function withOneMoreLinear(_directory: string, manifest: Manifest): Promise<Manifest> {
	const [first] = manifest.layers;
	assert.ok(first !== undefined);
	return { ...manifest, layers: [...manifest.layers, { ...first, name: "model.layers.9.mlp.up_proj" }] };
}

describe("what the runner's containers write", () => {
	for (const recipe of [...TINY_RECIPES, ...MORE_TINY_RECIPES]) {
		test(`${recipe} passes`, async () => {
			const result = await verifyVariant({
				directory: tinyDirectory(recipe),
				manifest: await readTinyManifest(recipe),
				recipe: recipeOf(recipe),
				verificationPath: TINY_VERIFICATION,
				policy: POLICY,
				limits: LIMITS,
			});
			assert.deepEqual(result.ok ? [] : result.refusal, []);
			assert.match(result.checks.join("\n"), /7 (linears|MatMulNBits)/);
			if (recipe === "gguf:q4_k_m") assert.match(result.checks.join("\n"), /, importance of 7 matrices beside it/);
			if (recipe.startsWith("onnx:"))
				assert.match(result.checks.join("\n"), /KL: .* nats a token in onnxruntime over 32 positions/);
		});
	}
});

describe("a folder that is not what its manifest says", () => {
	const cases: readonly [
		name: string,
		pattern: RegExp,
		breakIt: (directory: string, manifest: Manifest) => Promise<Manifest | undefined>,
	][] = [
		[
			"a changed byte",
			/LICENSE has another sha256/,
			async (directory) => {
				const path = join(directory, "LICENSE");
				const bytes = await readFile(path);
				bytes[3] = 0;
				await writeFile(path, bytes);
				return undefined;
			},
		],
		[
			"a file that grew",
			/LICENSE has \d+ bytes/,
			async (directory) => {
				await appendFile(join(directory, "LICENSE"), "x");
				return undefined;
			},
		],
		[
			"a missing file",
			/LICENSE is missing/,
			async (directory) => {
				await rm(join(directory, "LICENSE"));
				return undefined;
			},
		],
		[
			"a file too many",
			/load\.py is not in the manifest/,
			async (directory) => {
				await writeFile(join(directory, "load.py"), "import os");
				return undefined;
			},
		],
		[
			"a link in place of a file",
			/LICENSE is not a plain file/,
			async (directory) => {
				await rm(join(directory, "LICENSE"));
				await symlink("/etc/hostname", join(directory, "LICENSE"));
				return undefined;
			},
		],
		[
			"figures of another gate",
			/measured a lower KL for rtn/,
			async (_directory, manifest) => {
				for (const entry of manifest.gate.selection) if (entry.quantizer === "rtn") entry.klNats.mean = 0;
				return manifest;
			},
		],
		[
			"baselines of another size",
			/measured at another size/,
			async (_directory, manifest) => {
				for (const entry of manifest.evaluation.measured) if (entry.quantizer === "rtn") entry.bytes += 1;
				return manifest;
			},
		],
		["another recipe", /is of the recipe w8a16/, async (_directory, manifest) => ({ ...manifest, recipe: "w8a16" })],
	];
	for (const [name, pattern, breakIt] of cases) {
		test(`${name} is refused`, async () => assertRefused(await verifyBroken("w4a16", breakIt), pattern));
	}

	test("a script that the manifest lists is refused all the same", async () => {
		const result = await verifyBroken(
			"w4a16",
			async (directory, manifest) => {
				await writeFile(join(directory, "modeling.py"), "import os");
				manifest.files.push({ path: "modeling.py", size: 9, sha256: "0".repeat(64) });
				return manifest;
			},
			{ rehash: true },
		);
		assertRefused(result, /modeling\.py is not a kind of file/);
	});

	test("a manifest other than the one the runner reported is refused", async () => {
		await withCopy("w4a16", async (directory) => {
			const manifest = await readTinyManifest("w4a16");
			const result = await verifyVariant({
				directory,
				manifest: { ...manifest, fence: manifest.fence + 1 },
				recipe: recipeOf("w4a16"),
				verificationPath: null,
				policy: POLICY,
				limits: LIMITS,
			});
			assertRefused(result, /not the one that the runner reported/);
		});
	});

	test("paths that lead out of the folder do not get past the schema", async () => {
		const manifest = await readTinyManifest("w4a16");
		for (const path of ["../x", "/etc/passwd", "a/../../b", "a//b", "a\\b", ".", "onnx/.."]) {
			assert.equal(
				Manifest.safeParse({ ...manifest, files: [{ path, size: 1, sha256: "0".repeat(64) }] }).success,
				false,
				path,
			);
		}
	});
});

describe("files that agree with their manifest but not with their recipe", () => {
	const replaceIn = (from: string, to: string) => async (directory: string, manifest: Manifest) => {
		for (const { path } of manifest.files) {
			const bytes = await readFile(join(directory, path));
			const at = bytes.indexOf(from, 0, "latin1");
			if (at < 0) continue;
			bytes.write(to, at, "latin1");
			await writeFile(join(directory, path), bytes);
		}
		return undefined;
	};

	test("a GGUF without its magic", async () => {
		const result = await verifyBroken("gguf:q4_0", replaceIn("GGUF", "GGUX"), { rehash: true });
		assertRefused(result, /does not start as GGUF/);
	});
	test("a GGUF cut short", async () => {
		const result = await verifyBroken(
			"gguf:q4_0",
			async (directory) => {
				const path = join(directory, "tiny-llama-Q4_0.gguf");
				await writeFile(path, (await readFile(path)).subarray(0, -4096));
				return undefined;
			},
			{ rehash: true },
		);
		assertRefused(result, /points outside the file/);
	});
	test("a GGUF of another architecture", async () => {
		const result = await verifyBroken(
			"gguf:q4_0",
			replaceIn("\u0005\0\0\0\0\0\0\0llama", "\u0005\0\0\0\0\0\0\0evil!"),
			{ rehash: true },
		);
		assertRefused(result, /architecture/);
	});
	test("a GGUF of fewer linears than the manifest describes", async () => {
		const result = await verifyBroken("gguf:q4_0", withOneMoreLinear);
		assertRefused(result, /holds \d+ weights of linears as Q4_0 of \d+ inputs, the manifest describes \d+/);
	});
	test("a smaller group that the recipe or the files do not have", async () => {
		const foreign = await verifyBroken("w4a16", async (_directory, manifest) => ({
			...manifest,
			fittedGroup: { asked: 64, used: 32, askedLinears: 0 },
		}));
		assertRefused(foreign, /the manifest says groups of 32 for 64; w4a16\S* allows no such thing/);
		const absent = await verifyBroken("w4a16", async (_directory, manifest) => ({
			...manifest,
			fittedGroup: { asked: recipeOf("w4a16").group ?? 0, used: 32, askedLinears: 0 },
		}));
		assert.equal(absent.ok, false);
	});

	test("compressed tensors of other bits than config.json says", async () => {
		const result = await verifyBroken("w4a16", replaceIn('"num_bits": 4', '"num_bits": 8'), { rehash: true });
		assertRefused(result, /config\.json says 8 bits/);
	});
	test("zero points that the recipe does not have, and the other way round", async () => {
		const none = await verifyBroken("w3a16,zero=on", replaceIn('"symmetric": false', '"symmetric": true '), {
			rehash: true,
		});
		assertRefused(none, /is symmetric, the recipe says the opposite/);
		const renamed = await verifyBroken(
			"w3a16,zero=on",
			replaceIn("mlp.up_proj.weight_zero_point", "mlp.up_proj.weight_zero_poinx"),
			{ rehash: true },
		);
		assertRefused(renamed, /up_proj lacks its zero points/);
	});
	for (const [name, from, to, pattern] of [
		["other bits in config.json", '"bits": 3', '"bits": 4', /config\.json says 4 bits/],
		["the second version of the format", '"checkpoint_format": "gptq"', '"checkpoint_format": "gptx"', /invalid at/],
		["reordered inputs", '"desc_act": false', '"desc_act": true ', /invalid at .*desc_act/],
		["a linear without scales", "mlp.up_proj.scales", "mlp.up_proj.scalex", /up_proj lacks .* its scales/],
		["a linear that no manifest describes", "mlp.up_proj.qweight", "mlp.uq_proj.qweight", /uq_proj is packed, but/],
		["packed words of another type", '"dtype":"I32"', '"dtype":"U32"', /U32|I32/],
	] as const) {
		test(`GPTQ: ${name}`, async () => {
			assertRefused(await verifyBroken("gptq:3", replaceIn(from, to), { rehash: true }), pattern);
		});
	}
	for (const [kind, value, pattern] of [
		["scales", 0x7c00, /scales holds a value that is not finite/],
		["g_idx", 9, /g_idx is not the plain order/],
		["qzeros", 0, /qzeros holds a zero point that is not in the middle/],
	] as const) {
		test(`GPTQ: a wrong word in ${kind}`, async () => {
			const result = await verifyBroken(
				"gptq:3",
				async (directory) => {
					const path = join(directory, "model.safetensors");
					const bytes = await readFile(path);
					const length = Number(bytes.readBigUInt64LE(0));
					const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
					const name = Object.keys(header).find((key) => key.endsWith(`.${kind}`)) ?? "";
					bytes.writeUInt16LE(value, 8 + length + header[name].data_offsets[0]);
					await writeFile(path, bytes);
					return undefined;
				},
				{ rehash: true },
			);
			assertRefused(result, pattern);
		});
	}
	for (const [name, from, to, pattern] of [
		["other bits in config.json", '"bits": 3', '"bits": 4', /config\.json says 4 bits and groups of 64/],
		["a mode that decodes otherwise", '"mode": "affine"', '"mode": "mxfp4x"', /invalid at .*mode/],
		[
			"settings for one more layer",
			'"model.embed_tokens": {',
			'"model.embed_tokent": {',
			/another in quantization_config/,
		],
		["a linear without biases", "mlp.up_proj.biases", "mlp.up_proj.biasex", /up_proj lacks its weight or its biases/],
		["a linear that no manifest describes", "mlp.up_proj.scales", "mlp.uq_proj.scales", /uq_proj is packed, but/],
		[
			"a vocabulary that is not packed",
			"embed_tokens.scales",
			"embed_tokens.scalex",
			/0 of model\.embed_tokens are packed/,
		],
		["packed words of another type", '"dtype":"U32"', '"dtype":"I32"', /is I32 .*, which \d+ × \d+ weights/],
		["code that mlx-lm would import", '"hidden_act": "silu"', '"model_file": "x.py"', /invalid at .*model_file/],
	] as const) {
		test(`MLX: ${name}`, async () => {
			assertRefused(await verifyBroken("mlx:3bit", replaceIn(from, to), { rehash: true }), pattern);
		});
	}
	test("MLX: a scale that is not finite, and a shape that is not the manifest's", async () => {
		const infinite = await verifyBroken(
			"mlx:3bit",
			async (directory) => {
				const path = join(directory, "model.safetensors");
				const bytes = await readFile(path);
				const length = Number(bytes.readBigUInt64LE(0));
				const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
				const [start] = header["model.layers.0.mlp.up_proj.biases"].data_offsets;
				bytes.writeUInt16LE(0x7f80, 8 + length + start);
				await writeFile(path, bytes);
				return undefined;
			},
			{ rehash: true },
		);
		assertRefused(infinite, /up_proj\.biases holds a value that is not finite/);
		const other = await verifyBroken("mlx:3bit", async (_directory, manifest) => ({
			...manifest,
			layers: manifest.layers.map((layer) => ({ ...layer, shape: [layer.shape[0], layer.shape[1] * 2] as const })),
		}));
		assertRefused(other, /holds \d+ × 128 weights, the manifest describes \d+ × 256|holds \d+ × 256/);
	});
	for (const [name, recipe, from, to, pattern] of [
		["another form", "nvfp4", '"group_size": 16', '"group_size": 32', /nvfp4 is 4, tensor_group, 16/],
		["another mode", "mlx:nvfp4", '"mode": "nvfp4"', '"mode": "mxfp4"', /says the mode mxfp4, the recipe is mlx:nvfp4/],
		["another format", "mxfp4", '"mxfp4-pack-quantized"', '"nvfp4-pack-quantized"', /invalid at .*format/],
		[
			"activations that are rounded, too",
			"fp8",
			'"input_activations": null',
			'"input_activations": 1234',
			/invalid at/,
		],
		[
			"a linear without its divider",
			"nvfp4",
			"up_proj.weight_global_scale",
			"up_proj.weight_globax_scale",
			/up_proj lacks/,
		],
		["scales of another type", "nvfp4", '"dtype":"F8_E4M3"', '"dtype":"F8_E5M2"', /is F8_E5M2 .*, not F8_E4M3/],
		[
			"codes of another type",
			"mxfp4",
			'"dtype":"U8","shape":[64,64]',
			'"dtype":"I8","shape":[64,64]',
			/of 4 bits do not/,
		],
	] as const) {
		test(`FP4 and FP8: ${name}`, async () => {
			assertRefused(await verifyBroken(recipe, replaceIn(from, to), { rehash: true }), pattern);
		});
	}
	for (const [name, recipe, tensor, value, pattern] of [
		["a scale of MLX below 0", "mlx:nvfp4", "mlp.up_proj.scales", 0x81, /no positive number/],
		["a scale below 0", "nvfp4", "mlp.up_proj.weight_scale", 0x81, /no positive number/],
		["a scale that is no number", "mxfp4", "mlp.up_proj.weight_scale", 0xff, /no positive number/],
		[
			"a weight that is no number",
			"fp8",
			"mlp.up_proj.weight",
			0xff,
			/up_proj\.weight holds a value that is no number/,
		],
		["a divider of its own", "nvfp4", "mlp.up_proj.weight_global_scale", 0x80, /divides its scales by/],
	] as const) {
		test(`FP4 and FP8: ${name}`, async () => {
			const result = await verifyBroken(
				recipe,
				async (directory) => {
					const path = join(directory, "model.safetensors");
					const bytes = await readFile(path);
					const length = Number(bytes.readBigUInt64LE(0));
					const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
					const [start, end] = header[`model.layers.0.${tensor}`].data_offsets;
					// Of a number of 32 bits, a byte that leaves it one.
					bytes[8 + length + (end - start === 4 ? start + 2 : start)] = value;
					await writeFile(path, bytes);
					return undefined;
				},
				{ rehash: true },
			);
			assertRefused(result, pattern);
		});
	}
	for (const [name, from, to, pattern] of [
		["another type", "imatrix\u0010", "imatrip\u0010", /does not say that it is an importance matrix/],
		["a tensor besides", "attn_k.weight.counts", "attn_k.weight.kounts", /no part of an importance matrix/],
		["counts without sums", "attn_k.weight.in_sum2", "attn_j.weight.in_sum2", /no part of an importance matrix/],
	] as const) {
		test(`an importance matrix with ${name}`, async () => {
			assertRefused(await verifyBroken("gguf:q4_k_m", replaceIn(from, to), { rehash: true }), pattern);
		});
	}
	test("a model in the place of an importance matrix", async () => {
		const moved = await verifyBroken("gguf:q4_k_m", async (directory, manifest) => {
			const entry = manifest.files.find(({ path }) => path.startsWith("imatrix/"));
			assert.ok(entry !== undefined);
			await rename(join(directory, entry.path), join(directory, "imatrix/model.gguf"));
			entry.path = "imatrix/model.gguf";
			return undefined;
		});
		assertRefused(moved, /files take \d+ bytes|not named as an importance matrix/);
	});
	test("a K-type where the row would ask for its fallback", async () => {
		const result = await verifyBroken("gguf:q4_k_m", withOneMoreLinear);
		assertRefused(result, /weights of linears as Q\w+ of \d+ inputs, the manifest describes \d+/);
	});
	test("types that the recipe's name does not stand for", async () => {
		const result = await withCopy("gguf,bpw=5", async (directory) => {
			const manifest = { ...(await readTinyManifest("gguf,bpw=5")), recipe: "gguf:q4_0", mixed: undefined };
			await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
			return verifyVariant({
				directory,
				manifest,
				recipe: recipeOf("gguf:q4_0"),
				verificationPath: TINY_VERIFICATION,
				policy: POLICY,
				limits: LIMITS,
			});
		});
		assertRefused(result, /a linear of Q5_K, which gguf:q4_0 has none of/);
	});
	test("a mix with a linear of another type than the manifest tells", async () => {
		const result = await verifyBroken("gguf,bpw=5", async (_directory, manifest) => ({
			...manifest,
			layers: manifest.layers.map((layer) => (layer.type === "q5_k" ? { ...layer, type: "q6_k" } : layer)),
		}));
		assertRefused(result, /holds 0 weights of linears as Q6_K of 256 inputs, the manifest describes 32768/);
	});
	test("a mix above the bits a weight that were asked for", async () => {
		const result = await withCopy("gguf,bpw=5", async (directory) => {
			const manifest = { ...(await readTinyManifest("gguf,bpw=5")), recipe: "gguf,bpw=4.5" };
			await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
			const recipe = recipeOf("gguf,bpw=4.5");
			return verifyVariant({
				directory,
				manifest,
				recipe,
				verificationPath: TINY_VERIFICATION,
				policy: POLICY,
				limits: LIMITS,
			});
		});
		assertRefused(result, /take 4\.889 bits a weight, the recipe allows 4\.5/);
	});
	test("a mix whose files are larger than the budget of bytes", async () => {
		const manifest = await readTinyManifest("gguf,bpw=5");
		const bytes = manifest.files.reduce((sum, file) => sum + file.size, 0);
		const within = async (budget: number, told = budget): Promise<VariantVerification> =>
			withCopy("gguf,bpw=5", async (directory) => {
				const recipe = recipeOf(`gguf,bytes=${budget}`);
				const mixed = { ...(manifest.mixed ?? assert.fail()), targetBitsPerWeight: null, targetBytes: told };
				const changed = { ...manifest, recipe: recipe.canonical, mixed };
				await writeFile(join(directory, "manifest.json"), JSON.stringify(changed));
				return verifyVariant({
					directory,
					manifest: changed,
					recipe,
					verificationPath: null,
					policy: POLICY,
					limits: LIMITS,
				});
			});
		assert.equal((await within(bytes)).ok, true);
		assertRefused(await within(bytes - 1), new RegExp(`take ${bytes} bytes, the recipe allows .*\\(${bytes - 1}\\)`));
		assertRefused(await within(bytes + 1000, bytes), /under another budget than the recipe's/);
	});
	test("a config that asks for code", async () => {
		const result = await verifyBroken(
			"w4a16",
			async (directory) => {
				const path = join(directory, "config.json");
				await writeFile(
					path,
					JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), auto_map: { AutoModel: "x.Y" } }),
				);
				return undefined;
			},
			{ rehash: true },
		);
		assertRefused(result, /auto_map/);
	});
	test("a scale that is not finite", async () => {
		const result = await verifyBroken(
			"w4a16",
			async (directory) => {
				const path = join(directory, "model.safetensors");
				const bytes = await readFile(path);
				const length = Number(bytes.readBigUInt64LE(0));
				const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
				const name = Object.keys(header).find((key) => key.endsWith(".weight_scale")) ?? "";
				bytes.writeUInt16LE(0x7f80, 8 + length + header[name].data_offsets[0]);
				await writeFile(path, bytes);
				return undefined;
			},
			{ rehash: true },
		);
		assertRefused(result, /not finite/);
	});
	test("a safetensors file with a broken header", async () => {
		const result = await verifyBroken(
			"w4a16",
			async (directory) => {
				const path = join(directory, "model.safetensors");
				const bytes = await readFile(path);
				bytes.writeBigUInt64LE(2n ** 62n, 0);
				await writeFile(path, bytes);
				return undefined;
			},
			{ rehash: true },
		);
		assertRefused(result, /not a sound safetensors file/);
	});
	for (const [recipe, files, pattern] of [
		["onnx:q4", "onnx:q4,embedding=q8", /gathers its embedding from 8 bits; the recipe says floating point/],
		["onnx:q4,embedding=q4", "onnx:q4,embedding=q8", /gathers its embedding from 8 bits; the recipe says 4/],
		["onnx:q4,embedding=q8", "onnx:q4", /0 MatMulNBits of 8 bits; for 7 linears .* an output layer of 8 there are 1/],
		["onnx:q4,embedding=q8,block=64", "onnx:q4,embedding=q8", /of block 32; the recipe says 64/],
		["onnx:q8", "onnx:q4", /7 MatMulNBits of 4 bits; for 7 linears of 8 bits there are 0/],
	] as const) {
		test(`${recipe}, where the files are of ${files}`, async () => {
			const result = await withCopy(files, async (directory) => {
				const wanted = recipeOf(recipe);
				const manifest = { ...(await readTinyManifest(files)), recipe: wanted.canonical };
				await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
				return verifyVariant({
					directory,
					manifest,
					recipe: wanted,
					verificationPath: null,
					policy: POLICY,
					limits: LIMITS,
				});
			});
			assertRefused(result, pattern);
		});
	}
	test("an ONNX graph with an operator from elsewhere", async () => {
		const result = await verifyBroken("onnx:q4", replaceIn("com.microsoft", "com.intruder0"), { rehash: true });
		assertRefused(result, /uses the operator/);
	});
	test("an ONNX graph that is no protobuf", async () => {
		const result = await verifyBroken(
			"onnx:q4",
			async (directory) => writeFile(join(directory, "onnx/model_q4.onnx"), "not a graph").then(() => undefined),
			{ rehash: true },
		);
		assertRefused(result, /is refused/);
	});
	test("an ONNX file under a name that no loader looks for", async () => {
		const result = await verifyBroken(
			"onnx:q4",
			async (directory, manifest) => {
				await rename(join(directory, "onnx/model_q4.onnx"), join(directory, "model.bin"));
				for (const file of manifest.files) if (file.path.endsWith(".onnx")) file.path = "model.bin";
				return manifest;
			},
			{ rehash: true },
		);
		assertRefused(result, /model\.bin is not a kind of file/);
	});
});

describe("the KL that onnxruntime computes again", () => {
	test("a manifest that claims a lower one is refused", async () => {
		const result = await verifyBroken("onnx:q4", async (_directory, manifest) => {
			manifest.verification.klNats *= 0.9;
			return manifest;
		});
		assertRefused(result, /onnxruntime measures a KL of .* nats, the manifest says/);
	});
	test("weights that were swapped for others are found by it", async () => {
		const result = await verifyBroken(
			"onnx:q4",
			async (directory, manifest) => {
				const path = join(directory, "onnx/model_q4.onnx");
				const bytes = await readFile(path);
				const codes = bytes.lastIndexOf("mlp.down_proj.weight_quantized") + 100;
				bytes.fill(0xff, codes, codes + 8000);
				await writeFile(path, bytes);
				return manifest;
			},
			{ rehash: true },
		);
		assertRefused(result, /onnxruntime/);
	});
	test("a child over its time or memory is ended and the variant refused", async () => {
		const unchanged = async (): Promise<undefined> => undefined;
		const late = await verifyBroken("onnx:q4", unchanged, { limits: { ...LIMITS, milliseconds: 1 } });
		assertRefused(late, /did not finish within/);
		const fat = await verifyBroken("onnx:q4", unchanged, { limits: { ...LIMITS, memoryBytes: 1e6 } });
		assertRefused(fat, /more than 1000000 bytes/);
	});
	test("nothing of the bot's environment reaches the child", { skip: process.platform !== "linux" }, async () => {
		process.env["HF_TOKEN"] = "hf_canary_in_the_environment";
		try {
			const running = onnxKl({
				graphPath: join(tinyDirectory("onnx:q4"), "onnx/model_q4.onnx"),
				verificationPath: TINY_VERIFICATION,
				limits: LIMITS,
			});
			let environment: string | null = null;
			// On a busy machine the child may not have begun, or may end between two of these reads.
			for (let look = 0; environment === null && look < 200; look++) {
				for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
					const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
					const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
					if (!command.includes("onnx-kl-child") || !status.includes(`PPid:\t${process.pid}\n`)) continue;
					environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => null);
				}
			}
			assert.equal(environment, "GGML_NO_BACKTRACE=1\0");
			assert.equal((await running).ok, true);
		} finally {
			delete process.env["HF_TOKEN"];
		}
	});
});
