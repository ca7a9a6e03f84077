import assert from "node:assert/strict";
import { test } from "node:test";
import { isOfOneCommit } from "../../../src/protocol/one-commit.ts";
import { RECIPE_NAMES } from "../../../src/protocol/recipe-table.ts";
import { MAXIMUM_REPO_NAME_CHARACTERS, stagingRepo, targetRepo } from "../../../src/publish/names.ts";
import { recipeOf } from "../../support/recipe-of.ts";

const name = (recipe: string, sourceRepo = "owner/Model-7B"): string =>
	targetRepo({ namespace: "yaqa", sourceRepo, recipe: recipeOf(recipe) });

test("a recipe's repo says what is in it", () => {
	assert.equal(name("gguf:q4_0"), "yaqa/Model-7B-YAQA-GGUF");
	assert.equal(name("gguf:q8_0"), "yaqa/Model-7B-YAQA-GGUF");
	assert.equal(name("onnx:q4"), "yaqa/Model-7B-YAQA-ONNX");
	assert.equal(name("onnx:q8"), "yaqa/Model-7B-YAQA-ONNX");
	assert.equal(name("w4a16"), "yaqa/Model-7B-YAQA-W4A16");
	assert.equal(name("w4a16,group=32"), "yaqa/Model-7B-YAQA-W4A16-g32");
	assert.equal(name("w8a16,group=64,refine=0"), "yaqa/Model-7B-YAQA-W8A16-g64-r0");
	assert.equal(name("gguf,bytes=4.5GB"), "yaqa/Model-7B-YAQA-GGUF");
	assert.equal(name("gguf,bytes=4.5GB,tune=off"), "yaqa/Model-7B-YAQA-GGUF-untuned");
	assert.equal(name("gguf:q4_k_m"), "yaqa/Model-7B-YAQA-GGUF");
	assert.equal(name("w3a16,group=32,zero=on"), "yaqa/Model-7B-YAQA-W3A16-g32-asym");
	assert.equal(name("gptq:3"), "yaqa/Model-7B-YAQA-GPTQ-3bit");
	assert.equal(name("nvfp4a16"), "yaqa/Model-7B-YAQA-NVFP4");
	assert.equal(name("fp8,tune=off"), "yaqa/Model-7B-YAQA-FP8-untuned");
	assert.equal(name("mlx:4bit"), "yaqa/Model-7B-YAQA-MLX-4bit");
	assert.equal(name("mlx:nvfp4"), "yaqa/Model-7B-YAQA-MLX-nvfp4");
	assert.equal(name("mlx:4,group=32"), "yaqa/Model-7B-YAQA-MLX-4bit-g32");
	assert.equal(name("onnx:q4,block=64"), "yaqa/Model-7B-YAQA-ONNX-g64");
	assert.equal(name("onnx:q4,embedding=q8"), "yaqa/Model-7B-YAQA-ONNX-emb8");
	assert.equal(name("gptq:4,tune=off"), "yaqa/Model-7B-YAQA-GPTQ-4bit-untuned");
});

test("recipes whose files have the same names never share a repo", () => {
	const seen = new Map<string, string>();
	for (const entry of RECIPE_NAMES) {
		for (const group of entry.groups.length === 0 ? [""] : entry.groups.map((size) => `,group=${size}`)) {
			const embeddings = entry.embeddingBits.map((bits) => `,embedding=q${bits}`);
			for (const option of ["", ",refine=0", ",tune=off", ...(entry.zeroPoints ? [",zero=on"] : []), ...embeddings]) {
				const recipe = `${entry.name}${group}${option}`;
				// One GGUF or ONNX file a type: the type is in the file's name.
				const files = `${name(recipe)} ${["gguf", "onnx"].includes(entry.container) ? entry.name : ""}`;
				const canonical = recipeOf(recipe).canonical;
				assert.ok(!seen.has(files) || seen.get(files) === canonical, `${recipe} and ${seen.get(files)}`);
				seen.set(files, canonical);
			}
		}
	}
});

test("a long name is cut to the Hub's limit and stays one of a kind", () => {
	const one = name("w4a16,group=32", `owner/${"a".repeat(95)}1`);
	const two = name("w4a16,group=32", `owner/${"a".repeat(95)}2`);
	assert.notEqual(one, two);
	for (const repo of [one, two]) {
		assert.ok((repo.split("/")[1] ?? "").length <= MAXIMUM_REPO_NAME_CHARACTERS);
		assert.match(repo, /^yaqa\/a+-[0-9a-f]{8}-YAQA-W4A16-g32$/);
	}
});

test("a name holds only what the Hub allows", () => {
	assert.match(name("w4a16", "owner/we..ird--name"), /^yaqa\/we\.ird-name-YAQA-W4A16$/);
	assert.throws(
		() => targetRepo({ namespace: "../x", sourceRepo: "a/b", recipe: recipeOf("w4a16") }),
		/cannot be a namespace/,
	);
});

test("a staging repo is named after its job's id and nothing else", () => {
	assert.equal(
		stagingRepo({ namespace: "yaqa", jobId: "3f0d5a52-6b3a-4f5e-9f0e-1d2c3b4a5f60" }),
		"yaqa/staging-3f0d5a52-6b3a-4f5e-9f0e-1d2c3b4a5f60",
	);
	assert.throws(() => stagingRepo({ namespace: "yaqa", jobId: "../../x" }), /UUID/);
});

test("a commit beside the main branch has a repo of its own, within the Hub's limit and apart from other commits'", () => {
	const at = (commit: string | null, sourceRepo = "owner/Model-7B") =>
		targetRepo({ namespace: "yaqa", sourceRepo, recipe: recipeOf("gguf:q4_0"), commit });
	assert.equal(at("1a2b3c4d5e6f7081".padEnd(40, "0")), "yaqa/Model-7B-YAQA-GGUF-at-1a2b3c4d5e6f");
	const long = at("1".repeat(40), `owner/${"a".repeat(95)}`);
	assert.ok((long.split("/")[1] ?? "").length <= MAXIMUM_REPO_NAME_CHARACTERS);
	assert.ok(isOfOneCommit(long));
	assert.ok(!isOfOneCommit(at(null, "owner/odd-at-1a2b3c4d5e6f")));
});
