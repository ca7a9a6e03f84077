import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { createRepo, uploadFiles } from "@huggingface/hub";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { publish } from "../../src/publish/publish.ts";
import {
	MORE_TINY_RECIPES,
	readTinyManifest,
	TINY_RECIPES,
	TINY_SOURCE,
	type TinyRecipe,
	tinyDirectory,
} from "../support/tiny-variants.ts";

/** The code on the cards is taken from the published README.md and run against the Hub that serves it. */

const ROOT = join(import.meta.dirname, "../..");
const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");
const TOKEN = "hf_bot_token";
const run = promisify(execFile);

let hub: LocalHub;
let work: string;

before(async () => {
	work = await mkdtemp(join(tmpdir(), "yaqa-snippets-"));
	hub = await startLocalHub({ dataDirectory: join(work, "hub"), users: [{ name: "bot", token: TOKEN }] });
	const access = { hubUrl: hub.url, accessToken: TOKEN, fetch: createHubFetch({ hubUrl: hub.url }) };
	await createRepo({ ...access, repo: "bot/tiny-llama", visibility: "public" });
	const done = await uploadFiles({ ...access, repo: "bot/tiny-llama", files: [pathToFileURL(`${TINY_SOURCE}/`)] });
	const sourceSha = done?.commit.oid ?? "";
	for (const recipe of [...TINY_RECIPES, ...MORE_TINY_RECIPES]) {
		const directory = join(work, recipe.replaceAll(/\W/g, "-"));
		await cp(tinyDirectory(recipe), directory, { recursive: true });
		const manifest = await readTinyManifest(recipe);
		manifest.source = { repo: "bot/tiny-llama", revision: sourceSha, license: null };
		await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
		const outcome = await publish({
			hub: access,
			reader: access,
			targetRepo: repoOf(recipe),
			job: { sourceRepo: "bot/tiny-llama", sourceSha },
			variants: [{ manifest, directory }],
			siblings: [],
		});
		assert.ok(outcome.ok);
	}
});

after(async () => {
	await hub.close();
	await rm(work, { recursive: true, force: true });
});

/** A repo for each, so that each has a card of its own. */
function repoOf(recipe: TinyRecipe): string {
	return `bot/tiny-llama-${recipe.replaceAll(/\W/g, "-")}`;
}

/** The code under this runtime's name on the published card. */
async function snippet(recipe: TinyRecipe, runtime: string): Promise<string> {
	const card = await (await fetch(`${hub.url}/${repoOf(recipe)}/resolve/main/README.md`)).text();
	const code = card.split(`**${runtime}**`)[1]?.match(/```\w+\n([\s\S]*?)\n```/)?.[1];
	assert.ok(code, `the card of ${recipe} has code for ${runtime}`);
	return code;
}

async function runPython(code: string): Promise<string> {
	const { stdout } = await run(PYTHON, ["-c", code], {
		timeout: 180_000,
		env: {
			PATH: process.env["PATH"],
			HF_ENDPOINT: hub.url,
			HF_HOME: join(work, "hf-home"),
			HF_HUB_DISABLE_TELEMETRY: "1",
			OMP_NUM_THREADS: "1",
		},
	});
	return stdout;
}

/** In a folder of its own that has the project's packages; `huggingface.co` is this test's Hub there. */
async function runNode(name: string, code: string, prelude = ""): Promise<string> {
	const directory = join(work, name);
	await mkdir(directory);
	await symlink(join(ROOT, "node_modules"), join(directory, "node_modules"));
	await writeFile(join(directory, "package.json"), '{"type":"module"}');
	await writeFile(join(directory, "snippet.js"), code);
	await writeFile(
		join(directory, "here.js"),
		`const send = globalThis.fetch;
globalThis.fetch = (input, init) => {
	const url = String(input instanceof Request ? input.url : input).replace("https://huggingface.co", ${JSON.stringify(hub.url)});
	return send(input instanceof Request ? new Request(url, input) : url, init);
};
${prelude}`,
	);
	const { stdout } = await run(process.execPath, ["--import", "./here.js", "snippet.js"], {
		cwd: directory,
		timeout: 120_000,
		env: { PATH: process.env["PATH"] },
	});
	return stdout;
}

const withoutPython = existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up";

test("transformers loads GGUF files and compressed-tensors repos as the cards say", {
	skip: withoutPython,
}, async () => {
	// One process for all: importing torch takes longer than the rest.
	const recipes = ["gguf:q4_0", "gguf:q4_k_m", "w4a16", "w3a16,zero=on"] as const;
	const code = await Promise.all(recipes.map((recipe) => snippet(recipe, "transformers")));
	assert.equal((await runPython(code.join("\n"))).split("The sea was").length, 5);
});

test("transformers.js loads ONNX repos as the cards say", async () => {
	// Its cache lies in node_modules, where a later run would find this one's files.
	const prelude = 'const { env } = await import("@huggingface/transformers");\nenv.cacheDir = "./cache/";\n';
	for (const recipe of ["onnx:q4", "onnx:q4f16", "onnx:q2", "onnx:q4,embedding=q8"] as const) {
		const code = await snippet(recipe, "transformers.js");
		assert.match(
			await runNode(`transformers-js-${recipe.slice(5).replaceAll(/\W/g, "-")}`, code, prelude),
			/The sea was/,
			recipe,
		);
	}
});

test("llama.cpp in Node loads a GGUF file as the card says", async () => {
	assert.match(await runNode("node-llama-cpp", await snippet("gguf:q4_0", "node-llama-cpp")), /The sea was/);
});

test("every engine that a card does not mark is one whose code is run here", async () => {
	const run = new Set(["transformers", "transformers.js", "onnxruntime-node", "node-llama-cpp"]);
	const notRun = new Set(["gptq:3 transformers"]);
	for (const recipe of [...TINY_RECIPES, ...MORE_TINY_RECIPES]) {
		const card = await (await fetch(`${hub.url}/${repoOf(recipe)}/resolve/main/README.md`)).text();
		const blocks = [...card.matchAll(/^\*\*([\w. -]+)\*\*( \(not run by the bot's tests\))?\n\n```/gm)];
		assert.ok(blocks.length > 0, recipe);
		for (const [, runtime = "", mark] of blocks) {
			const isRun = run.has(runtime) && !notRun.has(`${recipe} ${runtime}`);
			assert.equal(mark === undefined, isRun, `${recipe} in ${runtime}`);
		}
	}
});

test("onnxruntime-node loads the ONNX file as the card says", async () => {
	assert.match(await runNode("onnxruntime", await snippet("onnx:q4", "onnxruntime-node")), /\[ 1, 3, \d+ \]/);
	const saved = await readFile(join(work, "onnxruntime", "model_q4.onnx"));
	assert.deepEqual(saved, await readFile(join(tinyDirectory("onnx:q4"), "onnx/model_q4.onnx")));
	const blocks = await snippet("onnx:q4,embedding=q8", "onnxruntime-node");
	assert.match(blocks, /^\/\/ needs: onnxruntime-node 1\.23 or later\n/);
	assert.match(await runNode("onnxruntime-blocks", blocks), /\[ 1, 3, \d+ \]/);
});

test("cards name the servers that have kernels for their width, and what else is needed", async () => {
	assert.equal(await snippet("gptq:3", "vLLM"), `vllm serve ${repoOf("gptq:3")}`);
	assert.match(await snippet("gptq:3", "SGLang"), /^python -m sglang\.launch_server --model-path bot\//);
	assert.match(await snippet("gptq:3", "transformers"), /^# needs: pip install gptqmodel/);
	await snippet("w4a16", "SGLang");
	for (const runtime of ["vLLM", "SGLang"]) await assert.rejects(snippet("w3a16,zero=on", runtime));
});
