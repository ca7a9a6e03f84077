import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { judgeWithLlamaCpp } from "../../../src/verify/llama-cpp-judge.ts";
import { FRAGILE_KERNELS, kernelsOf } from "../../../src/verify/llama-cpp-kernels.ts";
import { TINY_VERIFICATION, tinyDirectory } from "../../support/tiny-variants.ts";

const LIMITS = { milliseconds: 120_000, memoryBytes: 4e9, threads: 1 } as const;
const BINARIES = fileURLToPath(
	new URL("../../../node_modules/@node-llama-cpp/linux-x64/bins/linux-x64", import.meta.url),
);
const isLinux = process.platform === "linux" && process.arch === "x64";
const skip = isLinux ? false : "skipped: llama.cpp has one library of kernels for each generation on linux-x64";

describe("llama.cpp's kernels for the processor", { skip }, () => {
	let folder = "";
	let model = "";
	let own = "";
	before(async () => {
		folder = await mkdtemp(join(tmpdir(), "yaqa-kernels-test-"));
		const found = (await readdir(tinyDirectory("gguf:q4_0"))).find((name) => name.endsWith(".gguf"));
		assert.ok(found !== undefined);
		model = join(tinyDirectory("gguf:q4_0"), found);
		const verdict = await judgeWithLlamaCpp({ modelPath: model, verificationPath: TINY_VERIFICATION, limits: LIMITS });
		assert.ok(verdict.kind === "measured", JSON.stringify(verdict));
		assert.ok(verdict.kernels !== null && verdict.kernels.ended === null);
		own = verdict.kernels.used;
	});
	after(() => rm(folder, { recursive: true, force: true }));

	test("those known to end on good models are the ones with AMX", () => {
		const libraries = readdirSync(BINARIES).filter((name) => kernelsOf(name) !== null);
		assert.ok(libraries.length > 3);
		const amx = libraries.filter((name) => readFileSync(join(BINARIES, name)).includes("ggml_backend_amx_mul_mat"));
		assert.deepEqual(new Set(amx.map(kernelsOf)), FRAGILE_KERNELS);
	});

	test("where they end on a file, it is judged by the next ones, and the verdict says so", async () => {
		// Dies of every file, as AMX does of some, until it is told which kernels to choose from.
		const script = join(folder, "child.ts");
		const real = fileURLToPath(new URL("../../../src/verify/llama-cpp-child.ts", import.meta.url));
		const library = join(BINARIES, `libggml-cpu-${own}.so`);
		await writeFile(
			script,
			`if (process.argv[6] === undefined) {
				process.stdout.write('${JSON.stringify({ library })}\\n');
				process.abort();
			}
			await import(${JSON.stringify(real)});`,
		);
		const request = { modelPath: model, verificationPath: TINY_VERIFICATION, limits: LIMITS, script };
		const plain = await judgeWithLlamaCpp({ ...request, fragile: new Set() });
		assert.ok(plain.kind === "refused");
		assert.match(plain.reason, /SIGABRT/);
		const verdict = await judgeWithLlamaCpp({ ...request, fragile: new Set([own]) });
		assert.ok(verdict.kind === "measured", JSON.stringify(verdict));
		assert.equal(verdict.kernels?.ended, own);
		assert.ok(verdict.kernels !== null && verdict.kernels.used !== own);
		assert.ok((await readdir(BINARIES)).includes(`libggml-cpu-${verdict.kernels.used}.so`));
		assert.ok(verdict.measurement.sequences.length > 0);
	});

	test("a file that every kernel ends on is refused, within the limits of one", async () => {
		const deadly = join(folder, "deadly.gguf");
		await copyFile(model, deadly);
		const bytes = await readFile(deadly);
		// llama.cpp asserts that there are blocks.
		const place = bytes.indexOf("llama.block_count") + "llama.block_count".length;
		bytes.writeUInt32LE(0, place + 4);
		await writeFile(deadly, bytes);
		const { TMPDIR } = process.env;
		process.env["TMPDIR"] = folder;
		const verdict = await judgeWithLlamaCpp({
			modelPath: deadly,
			verificationPath: TINY_VERIFICATION,
			limits: LIMITS,
			fragile: new Set([own]),
		}).finally(() => {
			if (TMPDIR === undefined) delete process.env["TMPDIR"];
			else process.env["TMPDIR"] = TMPDIR;
		});
		assert.ok(verdict.kind === "refused");
		assert.match(verdict.reason, /ended with signal SIGABRT/);
		// Nothing is left of the folder that the second try chose from.
		assert.deepEqual((await readdir(folder)).toSorted(), ["child.ts", "deadly.gguf"]);
	});
});
