import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { folderSourceReader } from "../../src/verify/folder-source-reader.ts";
import { inspectFiles } from "../../src/verify/inspect-files.ts";
import { TINY_SOURCE } from "../support/tiny-variants.ts";

/** What people push by mistake, refused by its cause from headers and JSON alone. */

const TOWER = { vision_config: { hidden_size: 64, num_hidden_layers: 2 } };

type Change = (folder: string) => Promise<void>;

function json(file: string, changes: Readonly<Record<string, unknown>>): Change {
	return async (folder) => {
		const path = join(folder, file);
		const known = JSON.parse(await readFile(path, "utf8")) as object;
		await writeFile(path, JSON.stringify({ ...known, ...changes }));
	};
}

const config = (changes: Readonly<Record<string, unknown>>): Change => json("config.json", changes);

const lostProcessor: Change = async (folder) => {
	await config(TOWER)(folder);
	await json("tokenizer_config.json", { processor_class: "Gemma3Processor" })(folder);
};

/** One of the weights' matrices under another type of the same width: float8 without the scales that belong to it. */
const float8: Change = async (folder) => {
	const path = join(folder, "model.safetensors");
	const bytes = await readFile(path);
	const length = Number(bytes.readBigUInt64LE(0));
	const header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8")) as Record<
		string,
		{ dtype: string; shape: number[]; data_offsets: [number, number] }
	>;
	const name = Object.keys(header).find((tensor) => tensor.endsWith("q_proj.weight"));
	const tensor = name === undefined ? undefined : header[name];
	assert.ok(tensor !== undefined);
	const [start, end] = tensor.data_offsets;
	const text = JSON.stringify(header).replace(
		JSON.stringify(tensor),
		JSON.stringify({ dtype: "F8_E4M3", shape: [end - start, 1], data_offsets: [start, end] }),
	);
	const padded = text.padEnd(Math.ceil(text.length / 8) * 8);
	const size = Buffer.alloc(8);
	size.writeBigUInt64LE(BigInt(padded.length));
	await writeFile(path, Buffer.concat([size, Buffer.from(padded), bytes.subarray(8 + length)]));
};

/** A file whose only matrices are a tower's. */
const towerAlone: Change = async (folder) => {
	const header = JSON.stringify({
		"vision_tower.layers.0.fc.weight": { dtype: "F16", shape: [2, 2], data_offsets: [0, 8] },
	});
	const padded = header.padEnd(Math.ceil(header.length / 8) * 8);
	const size = Buffer.alloc(8);
	size.writeBigUInt64LE(BigInt(padded.length));
	await writeFile(join(folder, "model.safetensors"), Buffer.concat([size, Buffer.from(padded), Buffer.alloc(8)]));
};

const adapter: Change = async (folder) => {
	await rm(join(folder, "model.safetensors"));
	await writeFile(join(folder, "adapter_model.safetensors"), "");
	await writeFile(join(folder, "adapter_config.json"), JSON.stringify({ base_model_name_or_path: "someone/gone" }));
};

const CASES: readonly (readonly [name: string, change: Change, code: string, says: RegExp])[] = [
	["code of its own", config({ auto_map: { AutoModel: "modeling.X" } }), "remote-code", /asks for code from the repo/],
	[
		"a tower without its processor",
		lostProcessor,
		"broken-config",
		/has a vision_config.* names a processor, and the repo has none/,
	],
	["a tower without a language model", towerAlone, "broken-config", /no token embedding/],
	[
		"an adapter without its base",
		adapter,
		"unknown-architecture",
		/holds an adapter of "someone\/gone", not a whole model/,
	],
	["float8 without scales", float8, "already-quantized", /q_proj\.weight.* is stored as F8_E4M3/],
	[
		"float8 without scales that the config tells of",
		async (folder) => {
			await float8(folder);
			await config({ quantization_config: { quant_method: "fp8", weight_block_size: [128, 128] } })(folder);
		},
		"already-quantized",
		/q_proj\.weight.* has no scales/,
	],
	[
		"layers that the file lacks",
		config({ num_hidden_layers: 3 }),
		"broken-config",
		/says 3 layers; the weights have 1/,
	],
	...["awq", "gptq", "bitsandbytes"].map(
		(method) =>
			[
				`weights quantized by ${method}`,
				config({ quantization_config: { quant_method: method } }),
				"already-quantized",
				new RegExp(`quantized already.*${method}`),
			] as const,
	),
];

describe("a checkpoint pushed by mistake is refused by its cause", () => {
	let work = "";
	before(async () => {
		work = await mkdtemp(join(tmpdir(), "yaqa-bad-"));
	});
	after(() => rm(work, { recursive: true, force: true }));

	for (const [name, change, code, says] of CASES) {
		test(name, async () => {
			const folder = join(work, name.replaceAll(" ", "-"));
			await cp(TINY_SOURCE, folder, { recursive: true });
			await change(folder);
			const found = await inspectFiles(await folderSourceReader(folder), { maximumWeightBytes: 1e9 });
			assert.ok(!found.ok);
			assert.equal(found.refusal.code, code, found.refusal.message);
			assert.match(found.refusal.message, says);
			assert.ok(found.refusal.remedy.length > 10);
		});
	}

	test("a tower in a repo that names no processor is taken for its text", async () => {
		const folder = join(work, "text-of-a-tower");
		await cp(TINY_SOURCE, folder, { recursive: true });
		await config(TOWER)(folder);
		const found = await inspectFiles(await folderSourceReader(folder), { maximumWeightBytes: 1e9 });
		assert.ok(found.ok, JSON.stringify(found));
	});
});
