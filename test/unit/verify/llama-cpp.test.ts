import assert from "node:assert/strict";
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { ConfigurationFile } from "../../../src/config/schema.ts";
import type { EngineFigures, Manifest } from "../../../src/protocol/manifest.ts";
import { checkFidelityFloor } from "../../../src/verify/fidelity-floor.ts";
import type { ChildLimits } from "../../../src/verify/limited-child.ts";
import { checkInLlamaCpp } from "../../../src/verify/llama-cpp-checks.ts";
import { judgeWithLlamaCpp, type LlamaCppMeasurement } from "../../../src/verify/llama-cpp-judge.ts";
import { CheckFailure } from "../../../src/verify/manifest-checks.ts";
import { openSafetensors } from "../../../src/verify/read-safetensors.ts";
import { verifyVariant } from "../../../src/verify/verify-variant.ts";
import { recipeOf } from "../../support/recipe-of.ts";
import { readTinyManifest, TINY_VERIFICATION, tinyDirectory } from "../../support/tiny-variants.ts";

const LIMITS: ChildLimits = { milliseconds: 120_000, memoryBytes: 4e9, threads: 1 };
const POLICY = ConfigurationFile.parse({}).verification;
const RECIPE = "gguf:q4_0";

let folder = "";
let model = "";
before(async () => {
	folder = await mkdtemp(join(tmpdir(), "yaqa-llama-cpp-"));
	const found = (await readdir(tinyDirectory(RECIPE))).find((name) => name.endsWith(".gguf"));
	assert.ok(found !== undefined);
	model = join(tinyDirectory(RECIPE), found);
});
after(() => rm(folder, { recursive: true, force: true }));

type TokenizerRecord = {
	readonly texts: readonly { readonly kind: string; readonly text: string; readonly ids: readonly number[] }[];
	readonly opening: readonly number[];
	readonly end: number | null;
};

/** The reference tensors with a record of the tokenizer beside them, and a prompt to go on from. */
async function withTokenizer(name: string, record: TokenizerRecord, greedy: readonly number[]): Promise<string> {
	const file = await openSafetensors(TINY_VERIFICATION);
	const parts: { name: string; dtype: string; shape: readonly number[]; bytes: Uint8Array }[] = [];
	for (const tensor of file.header.tensors.values()) {
		if (!["input_ids", "positions", "log_probabilities"].includes(tensor.name)) continue;
		const { name: own, dtype, shape } = tensor;
		parts.push({ name: own, dtype, shape, bytes: await file.read(tensor) });
	}
	await file.close();
	const text = new TextEncoder().encode(JSON.stringify(record));
	const ids = (values: readonly number[]): Uint8Array => new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
	parts.push({ name: "greedy_prompt", dtype: "I64", shape: [3], bytes: ids([5, 6, 7]) });
	parts.push({ name: "greedy_tokens", dtype: "I64", shape: [greedy.length], bytes: ids(greedy) });
	parts.push({ name: "tokenizer", dtype: "U8", shape: [text.byteLength], bytes: text });
	let place = 0;
	const header: Record<string, unknown> = {};
	for (const { name: own, dtype, shape, bytes } of parts) {
		header[own] = { dtype, shape, data_offsets: [place, place + bytes.byteLength] };
		place += bytes.byteLength;
	}
	const json = new TextEncoder().encode(JSON.stringify(header));
	const length = new Uint8Array(new BigUint64Array([BigInt(json.byteLength)]).buffer);
	const path = join(folder, name);
	await writeFile(path, Buffer.concat([length, json, ...parts.map(({ bytes }) => bytes)]));
	return path;
}

async function measured(verificationPath: string): Promise<LlamaCppMeasurement> {
	const verdict = await judgeWithLlamaCpp({ modelPath: model, verificationPath, limits: LIMITS });
	assert.ok(verdict.kind === "measured", JSON.stringify(verdict));
	return verdict.measurement;
}

/** What llama.cpp itself says, so that a record can agree with it. */
async function ownRecord(): Promise<{ readonly record: TokenizerRecord; readonly greedy: readonly number[] }> {
	const asked = { kind: "prose", text: "a the", ids: [0] };
	const path = await withTokenizer("asked.safetensors", { texts: [asked], opening: [0], end: 999_999 }, [0]);
	const { tokenizer } = await measured(path);
	const found = tokenizer?.different[0]?.found;
	assert.ok(found !== undefined && tokenizer?.opening != null);
	const record = {
		texts: [{ ...asked, ids: found }],
		opening: tokenizer.opening.found,
		end: tokenizer.end?.found ?? null,
	};
	return { record, greedy: [0] };
}

function check(manifest: Manifest, verificationPath: string | null) {
	return checkInLlamaCpp({
		directory: tinyDirectory(RECIPE),
		manifest,
		verificationPath,
		unmeasured: "refuse",
		limits: LIMITS,
	});
}

describe("llama.cpp judges a GGUF file", () => {
	test("what it measures stands in the manifest that is published", async () => {
		const result = await verifyVariant({
			directory: tinyDirectory(RECIPE),
			manifest: await readTinyManifest(RECIPE),
			recipe: recipeOf(RECIPE),
			verificationPath: TINY_VERIFICATION,
			policy: POLICY,
			limits: LIMITS,
		});
		assert.ok(result.ok);
		const { engine, verification } = result.manifest;
		assert.equal(engine?.name, "llama.cpp");
		assert.match(engine?.version ?? "", /\(node-llama-cpp \d+\.\d+\.\d+\)$/);
		assert.ok(Math.abs((engine?.klNats.mean ?? Number.NaN) - verification.klNats) < 0.01);
		assert.match(result.checks.join("\n"), /llama\.cpp .*: KL [\d.e-]+ nats a token over \d+ positions/);
	});

	test("a KL that is not the manifest's is refused, with both", async () => {
		const manifest = structuredClone(await readTinyManifest(RECIPE));
		manifest.verification.klNats += 0.2;
		await assert.rejects(
			check(manifest, TINY_VERIFICATION),
			/another distribution from it: a KL of .* the decoded weights give/,
		);
	});

	test("texts that it cuts otherwise are refused, but for those of small consequence", async () => {
		const { record, greedy } = await ownRecord();
		const manifest = await readTinyManifest(RECIPE);
		const texts = record.texts.map((text) => ({ ...text, ids: [...text.ids, 3] }));
		const other = await withTokenizer("other.safetensors", { ...record, texts }, greedy);
		await assert.rejects(check(manifest, other), /cuts 1 of 1 texts into other tokens .* such as "a the"/);
		const harmless = texts.map((text) => ({ ...text, kind: "decomposed" }));
		const told = await withTokenizer("told.safetensors", { ...record, texts: harmless }, greedy);
		const outcome = await check(manifest, told);
		assert.ok(outcome.kind === "measured");
		assert.deepEqual(outcome.engine.tokens, { texts: 1, equal: 0, different: ["a the"] });
	});

	test("how a prompt begins and which token ends a text are the original's, or it is refused", async () => {
		const { record, greedy } = await ownRecord();
		const manifest = await readTinyManifest(RECIPE);
		const opening = await withTokenizer("opening.safetensors", { ...record, opening: [9, ...record.opening] }, greedy);
		await assert.rejects(check(manifest, opening), /begins or ends a prompt with other tokens/);
		const end = await withTokenizer("end.safetensors", { ...record, end: 7 }, greedy);
		await assert.rejects(check(manifest, end), /does not end a text at the original's token 7/);
	});

	test("a file that does not load is refused with llama.cpp's word", async () => {
		const broken = join(folder, "broken.gguf");
		await copyFile(model, broken);
		const bytes = await readFile(broken);
		await writeFile(broken, bytes.subarray(0, bytes.byteLength / 2));
		const verdict = await judgeWithLlamaCpp({ modelPath: broken, verificationPath: TINY_VERIFICATION, limits: LIMITS });
		assert.ok(verdict.kind === "refused");
		assert.match(verdict.reason, /does not load|ended with/);
	});

	test("a file that kills the engine fails its variant and nothing else", async () => {
		const deadly = join(folder, "deadly.gguf");
		const bytes = await readFile(model);
		const key = Buffer.from("llama.block_count");
		const place = bytes.indexOf(key) + key.byteLength;
		// The value's type, an unsigned integer of 32 bits, and the value: llama.cpp asserts that there are blocks.
		assert.equal(bytes.readUInt32LE(place), 4);
		bytes.writeUInt32LE(0, place + 4);
		await writeFile(deadly, bytes);
		const verdict = await judgeWithLlamaCpp({ modelPath: deadly, verificationPath: TINY_VERIFICATION, limits: LIMITS });
		assert.ok(verdict.kind === "refused");
		assert.match(verdict.reason, /ended with signal SIGABRT.*GGML_ASSERT/s);
		assert.ok((await measured(TINY_VERIFICATION)).sequences.length > 0, "the next file is judged as before");
	});

	test("its time and its memory have an end", async () => {
		const request = { modelPath: model, verificationPath: TINY_VERIFICATION };
		const late = await judgeWithLlamaCpp({ ...request, limits: { ...LIMITS, milliseconds: 1 } });
		assert.ok(late.kind === "refused");
		assert.match(late.reason, /did not finish within/);
		const fat = await judgeWithLlamaCpp({ ...request, limits: { ...LIMITS, memoryBytes: 1e6 } });
		assert.ok(fat.kind === "refused");
		assert.match(fat.reason, /more than 1000000 bytes/);
	});

	test("where it is not on the machine, nothing passes unless the operator lets it, and that is told", async () => {
		const request = {
			directory: tinyDirectory(RECIPE),
			manifest: await readTinyManifest(RECIPE),
			verificationPath: TINY_VERIFICATION,
			limits: LIMITS,
			judge: async () => ({ kind: "missing", reason: "no binary here" }) as const,
		};
		await assert.rejects(checkInLlamaCpp({ ...request, unmeasured: "refuse" }), (error) => {
			assert.ok(error instanceof CheckFailure);
			assert.match(error.message, /cannot judge it here \(no binary here\)/);
			assert.match(error.remedy ?? "", /npm run setup.*verification\.unmeasured: allow/);
			return true;
		});
		const outcome = await checkInLlamaCpp({ ...request, unmeasured: "allow" });
		assert.ok(outcome.kind === "unmeasured");
		assert.equal(outcome.reason, "no binary here");
	});

	test("without the reference tensors it loads the file, and that is said", async () => {
		const outcome = await check(await readTinyManifest(RECIPE), null);
		assert.equal(outcome.kind, "loaded");
		assert.match(outcome.check, /not measured again/);
	});
});

describe("the floor", () => {
	const engine: EngineFigures = {
		name: "llama.cpp",
		version: "1",
		klNats: { mean: 0.01, standardError: 0 },
		topOneAgreement: 0.99,
		positions: 10,
		tokens: { texts: 0, equal: 0, different: [] },
		greedy: { tokens: 0, equal: 0 },
	};

	test("a KL or an agreement that is ruinous for the bits fails with the reason, the engine's as well", async () => {
		const manifest = structuredClone(await readTinyManifest(RECIPE));
		const own = manifest.evaluation.measured.find(({ quantizer }) => quantizer === manifest.quantizer);
		assert.ok(own !== undefined);
		assert.match(checkFidelityFloor(manifest, engine, POLICY.floor, 4), /^floor: KL at most 1\.5/);
		const ruined = { ...engine, klNats: { mean: 2, standardError: 0 } };
		assert.throws(
			() => checkFidelityFloor(manifest, ruined, POLICY.floor, 4),
			/KL to the original in llama\.cpp is 2\.00/,
		);
		// At two bits that is what one gets.
		assert.ok(checkFidelityFloor(manifest, ruined, POLICY.floor, 2));
		own.report.klNats.mean = 0.9;
		own.report.topOneAgreement = 0.01;
		assert.throws(() => checkFidelityFloor(manifest, null, POLICY.floor, 4), /top token is the original's at 1 %/);
		// A flat distribution has no favourite: there, another top token says nothing.
		own.report.klNats.mean = 0.001;
		assert.ok(checkFidelityFloor(manifest, null, POLICY.floor, 4));
		own.report.klNats.mean = Number.NaN;
		assert.throws(() => checkFidelityFloor(manifest, null, POLICY.floor, 4), /NaN nats/);
	});

	test("an operator can lift it", async () => {
		const manifest = structuredClone(await readTinyManifest(RECIPE));
		for (const entry of manifest.evaluation.measured) entry.report.klNats.mean = 100;
		assert.match(checkFidelityFloor(manifest, null, [], 4), /none is set/);
	});
});
