import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { modelInfo } from "@huggingface/hub";
import { getJobPage, jobsOf, waitFor } from "../../demo/follow-job.ts";
import { venvPython } from "../../demo/stack.ts";
import { downloadRepoFile } from "../../src/hub/download-repo-file.ts";
import { Manifest } from "../../src/protocol/manifest.ts";
import { manifestPath } from "../../src/publish/published-manifests.ts";
import { safetensors } from "../support/safetensors-bytes.ts";
import { startTinyStack, type TinyStack } from "../support/tiny-stack.ts";

const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";
const BASE = "demo/tiny-base";
const ADAPTER = "demo/tuned";
const QUERY = "base_model.model.model.layers.0.self_attn.q_proj";

describe("a push of an adapter", { skip, timeout: 800_000 }, () => {
	let tiny: TinyStack;
	before(async () => {
		// The base is nobody's to quantize here.
		tiny = await startTinyStack({ configuration: { watch: { namespaces: [], repos: [ADAPTER], recipes: ["w4a16"] } } });
		await tiny.stack.startBot();
		await tiny.stack.webhookIsSetUp();
	});
	after(() => tiny.close());

	test("gives variants of its own, merged onto its base at the commit that this had", async () => {
		const files = await tiny.modelFiles();
		const licensed = { path: "README.md", content: new Blob(["---\nlicense: apache-2.0\n---\n"]) };
		const baseSha = await tiny.push(BASE, [...files, licensed]);
		const config = { peft_type: "LORA", task_type: "CAUSAL_LM", r: 4, target_modules: ["q_proj"], lora_alpha: 8 };
		await tiny.push(ADAPTER, [
			{
				path: "adapter_config.json",
				content: new Blob([JSON.stringify({ ...config, base_model_name_or_path: BASE, layers_to_transform: [0] })]),
			},
			{
				path: "adapter_model.safetensors",
				content: new Blob([
					safetensors({ [`${QUERY}.lora_A.weight`]: [4, 128], [`${QUERY}.lora_B.weight`]: [128, 4] }, 0.02),
				]),
			},
			{ path: "README.md", content: new Blob(["---\nlicense: mit\n---\n"]) },
		]);
		const job = await waitFor(
			"The adapter's job",
			async () => {
				const [found] = await jobsOf(tiny.stack.botUrl, ADAPTER);
				return found !== undefined && ["done", "failed"].includes(found.state) ? found : null;
			},
			{ seconds: 400 },
		);
		assert.equal(job.state, "done", job.refusal?.message);
		const { variants } = await getJobPage(tiny.stack.botUrl, job.id);
		assert.deepEqual(
			variants.map(({ repo, state }) => [repo, state]),
			[["yaqa-bot/tuned-YAQA-W4A16", "published"]],
		);
		const repo = "yaqa-bot/tuned-YAQA-W4A16";
		const hub = { hubUrl: tiny.stack.hub.url };
		const info = await modelInfo({ ...hub, name: repo, additionalFields: ["cardData", "sha"] });
		assert.deepEqual(info.cardData?.base_model, [ADAPTER, BASE]);
		assert.deepEqual(info.cardData.license, ["mit", "apache-2.0"]);
		const read = async (path: string) =>
			new TextDecoder().decode(await downloadRepoFile(hub, repo, String(info.sha), path));
		const manifest = Manifest.parse(JSON.parse(await read(manifestPath("w4a16"))));
		assert.deepEqual(manifest.source.base, { repo: BASE, revision: baseSha, license: "apache-2.0" });
		const card = await read("README.md");
		assert.match(card, /^base_model_relation: quantized$/m);
		assert.match(card, /is \*\*an adapter\*\*: by PEFT it was merged onto/);
	});
});
