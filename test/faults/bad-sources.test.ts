import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { getJobPage, jobsOf, waitFor } from "../../demo/follow-job.ts";
import { cleanEnvironment, root, venvPython } from "../../demo/stack.ts";
import type { RefusalCode } from "../../src/errors.ts";
import { startTinyStack, type TinyFile, type TinyStack } from "../support/tiny-stack.ts";

const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";

function json(path: string, value: unknown): TinyFile {
	return { path, content: new Blob([JSON.stringify(value)]) };
}

/** A safetensors file whose header claims `headerLength` bytes and holds `header`. */
function safetensors(headerLength: bigint, header: string): Blob {
	const length = Buffer.alloc(8);
	length.writeBigUInt64LE(headerLength);
	return new Blob([length, header]);
}

type Change = (files: readonly TinyFile[]) => Promise<readonly TinyFile[]> | readonly TinyFile[];

async function configOf(files: readonly TinyFile[]): Promise<Record<string, unknown>> {
	const file = files.find((candidate) => candidate.path === "config.json");
	assert.ok(file);
	const value: unknown = JSON.parse(await file.content.text());
	assert.ok(typeof value === "object" && value !== null);
	return { ...value };
}

function without(files: readonly TinyFile[], ...paths: readonly string[]): TinyFile[] {
	return files.filter((file) => !paths.includes(file.path));
}

type Case = {
	readonly name: string;
	readonly code: RefusalCode;
	readonly says: RegExp;
	readonly change: Change;
};

const CASES: readonly Case[] = [
	{
		name: "pickles",
		code: "pickle-only",
		says: /pickle\b/i,
		change: (files) => [
			...without(files, "model.safetensors"),
			{ path: "pytorch_model.bin", content: new Blob([Buffer.from("80027d71002e", "hex")]) },
		],
	},
	{
		name: "auto-map",
		code: "remote-code",
		says: /auto\\?_map/,
		change: async (files) => [
			...without(files, "config.json"),
			json("config.json", { ...(await configOf(files)), auto_map: { AutoModelForCausalLM: "evil.Model" } }),
			{ path: "evil.py", content: new Blob(["raise SystemExit('ran')\n"]) },
		],
	},
	{
		name: "hostile-length",
		code: "broken-safetensors",
		says: /not a sound safetensors file/i,
		change: (files) => [
			...without(files, "model.safetensors"),
			{ path: "model.safetensors", content: safetensors(0x7fff_ffff_ffff_ffffn, "{}") },
		],
	},
	{
		name: "traversal",
		code: "unsafe-path",
		says: /outside the repo's own files/i,
		change: (files) => [
			...without(files, "model.safetensors"),
			...files
				.filter((file) => file.path === "model.safetensors")
				.map((file) => ({ ...file, path: "model-00001-of-00001.safetensors" })),
			json("model.safetensors.index.json", {
				metadata: { total_size: 4 },
				weight_map: { "model.embed_tokens.weight": "../../../etc/passwd" },
			}),
		],
	},
	{
		name: "novelty",
		code: "unknown-architecture",
		says: /FancyForCausalLM/,
		change: async (files) => [
			...without(files, "config.json"),
			json("config.json", {
				...(await configOf(files)),
				model_type: "fancy",
				architectures: ["FancyForCausalLM"],
			}),
		],
	},
	{
		name: "announcement",
		code: "empty-repo",
		says: /holds no model yet/i,
		change: () => [{ path: "README.md", content: new Blob(["# Soon\n"]) }],
	},
];

async function runBot(args: readonly string[], hubUrl: string): Promise<{ code: number | null; output: string }> {
	const child = spawn(process.execPath, [join(root, "src", "main.ts"), ...args], {
		cwd: root,
		stdio: ["ignore", "pipe", "pipe"],
		env: cleanEnvironment({ HF_ENDPOINT: hubUrl }),
	});
	let output = "";
	for (const stream of [child.stdout, child.stderr]) {
		stream.setEncoding("utf8");
		stream.on("data", (text: string) => {
			output += text;
		});
	}
	const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
	return { code, output };
}

describe("a source that cannot be quantized", { skip, timeout: 800_000 }, () => {
	let tiny: TinyStack;
	before(async () => {
		tiny = await startTinyStack({
			configuration: { watch: { namespaces: ["demo"], recipes: ["gguf:q4_0", "onnx:q4", "w4a16"] } },
		});
		await tiny.stack.startBot();
		await tiny.stack.webhookIsSetUp();
	});
	after(() => tiny.close());

	for (const { name, code, says, change } of CASES) {
		test(`${name}: is refused in the discussion, on the page and by the exit code`, async () => {
			const repo = `demo/${name}`;
			await tiny.push(repo, await change(await tiny.modelFiles()));
			const text = await waitFor(
				`The refusal of ${repo}`,
				async () => {
					const [discussion] = await tiny.discussionsOf(repo);
					const raw = discussion?.at(0)?.data.latest.raw ?? "";
					return says.test(raw) ? raw : null;
				},
				{ seconds: 90 },
			);
			assert.doesNotMatch(text, /undefined|\[object/);
			assert.equal((await tiny.discussionsOf(repo)).length, 1);

			const jobs = await jobsOf(tiny.stack.botUrl, repo);
			assert.equal(jobs.length, 1);
			const [job] = jobs;
			assert.equal(job?.state, "failed");
			assert.equal(job.refusal?.code, code);
			const page = await fetch(`${tiny.stack.botUrl}/jobs/${job.id}`, { headers: { accept: "text/html" } });
			assert.equal(page.status, 200);
			const shown = (await page.text()).replaceAll(/<[^>]*>/g, " ").replaceAll("&#39;", "'");
			assert.match(shown, says);
			assert.ok(job.refusal.remedy.length > 10, job.refusal.remedy);

			const ended = await runBot(["quantize", repo, "--recipe", "gguf:q4_0"], tiny.stack.hub.url);
			assert.equal(ended.code, 3, ended.output);
			assert.match(ended.output, says);
		});
	}

	test("leaves nothing behind", async () => {
		assert.deepEqual(await tiny.botRepos(), []);
		for (const { name } of CASES) {
			for (const job of await jobsOf(tiny.stack.botUrl, `demo/${name}`)) assert.equal(job.state, "failed");
		}
		for (const folder of ["runs", "sources", "work"]) {
			const path = join(tiny.stack.dataDirectory, "bot", folder);
			assert.deepEqual(existsSync(path) ? readdirSync(path) : [], [], folder);
		}
	});

	test("a recipe that cannot hold the model is told with its reason, once, and the others are published", async () => {
		const repo = "demo/other-activation";
		const files = await tiny.modelFiles();
		const changed = await Promise.all(
			files.map(async ({ path, content }) => {
				if (path !== "config.json") return { path, content };
				// A Llama of transformers computes it; llama.cpp and the graphs of onnxruntime have none.
				const config: object = JSON.parse(await content.text());
				return { path, content: new Blob([JSON.stringify({ ...config, hidden_act: "tanh" })]) };
			}),
		);
		// What was refused before keeps no later push waiting.
		await tiny.push(repo, changed);
		const done = async () => ((await jobsOf(tiny.stack.botUrl, repo)).at(0)?.state === "done" ? true : null);
		await waitFor(`The job of ${repo}`, done, { seconds: 300 });
		const [job] = await jobsOf(tiny.stack.botUrl, repo);
		assert.ok(job !== undefined);
		const { variants } = await getJobPage(tiny.stack.botUrl, job.id);
		assert.deepEqual(Object.fromEntries(variants.map(({ recipe, state }) => [recipe, state])), {
			"gguf:q4_0": "failed",
			"onnx:q4": "failed",
			w4a16: "published",
		});
		assert.deepEqual(await tiny.botRepos(), ["yaqa-bot/other-activation-YAQA-W4A16"]);
		const discussions = await tiny.discussionsOf(repo);
		assert.equal(discussions.length, 1);
		const text = discussions[0]?.[0]?.data.latest.raw ?? "";
		for (const recipe of ["gguf:q4_0", "onnx:q4"]) {
			assert.equal(text.split(`\`${recipe}\` failed:`).length, 2, text);
		}
		assert.match(text, /activation is 'tanh'/);
		assert.match(text, /activation that ONNX graphs of this version do not compute/);
		assert.match(text, /other-activation-YAQA-W4A16/);
	});
});
