import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fromMarkdown } from "mdast-util-from-markdown";
import { gfmFromMarkdown } from "mdast-util-gfm";
import { gfm } from "micromark-extension-gfm";
import { parse } from "yaml";
import type { Manifest } from "../../../src/protocol/manifest.ts";
import { commitSuffix } from "../../../src/protocol/one-commit.ts";
import type { CardRequest } from "../../../src/publish/card/card-request.ts";
import { gateSentence } from "../../../src/publish/card/fidelity.ts";
import { mixSentence } from "../../../src/publish/card/mixed-types.ts";
import { provenance } from "../../../src/publish/card/provenance.ts";
import { renderCard } from "../../../src/publish/card/render-card.ts";
import { unquantizedSentence } from "../../../src/publish/card/unquantized.ts";
import { markdownCode, markdownText } from "../../../src/publish/escape.ts";
import { comparison, formatBytes, formatEstimate, formatNumber } from "../../../src/publish/figures.ts";
import { renderStatus } from "../../../src/publish/status-text.ts";
import { readTinyManifest, type TinyRecipe } from "../../support/tiny-variants.ts";

const SNAPSHOT = join(import.meta.dirname, "card-snapshot.txt");

async function request(edit: (manifest: Manifest) => void = () => {}): Promise<CardRequest> {
	const manifest = await readTinyManifest("gguf:q4_0");
	edit(manifest);
	return {
		repo: "bot/tiny-llama-YAQA-GGUF",
		hubUrl: "https://hub.example",
		source: {
			repo: "owner/tiny-llama",
			headSha: "b".repeat(40),
			private: false,
			gated: false,
			license: "other",
			licenseName: "tiny: licence #1",
			bases: [],
			licenseLink: "LICENSE",
			languages: ["en", "no"],
			pipelineTag: "text-generation",
		},
		manifests: [manifest],
		elsewhere: [{ repo: "bot/tiny-llama-YAQA-W4A16", manifest: await readTinyManifest("w4a16") }],
		plotPath: "kl-by-size.png",
		newestSha: null,
	};
}

function split(card: string): { yaml: Record<string, unknown>; body: string } {
	const [, yaml = "", body = ""] = /^---\n([\s\S]*?)\n---\n([\s\S]*)$/.exec(card) ?? [];
	return { yaml: parse(yaml), body };
}

/** Every node of the Markdown, as a reader's renderer would see it. */
function nodes(body: string): { type: string; value?: string; url?: string }[] {
	const found: { type: string; value?: string; url?: string }[] = [];
	const walk = (node: { type: string; value?: string; url?: string; children?: unknown[] }): void => {
		found.push(node);
		for (const child of node.children ?? []) walk(child as typeof node);
	};
	walk(fromMarkdown(body, { extensions: [gfm()], mdastExtensions: [gfmFromMarkdown()] }) as Parameters<typeof walk>[0]);
	return found;
}

const HOSTILE = [
	"<script>alert(1)</script>",
	"![x](https://evil.example/pixel.png)",
	"[click](javascript:alert(1))",
	"@everyone see https://evil.example",
	"a | b\n---\n# heading",
	"```\n$(rm -rf /)\n```",
	"\u202eright to left\u0000",
	"</details><img src=x onerror=alert(1)>",
	"&lt;b&gt; www.evil.example",
];

describe("the card", () => {
	test("is the one that was looked at last", async () => {
		const card = renderCard(await request());
		if (process.env["UPDATE_SNAPSHOTS"] === "1") await writeFile(SNAPSHOT, card);
		assert.equal(card, await readFile(SNAPSHOT, "utf8"));
	});

	test("has the front matter that the Hub builds the model tree from", async () => {
		const { yaml } = split(renderCard(await request()));
		assert.deepEqual(yaml, {
			base_model: "owner/tiny-llama",
			base_model_relation: "quantized",
			pipeline_tag: "text-generation",
			license: "other",
			license_name: "tiny: licence #1",
			license_link: "LICENSE",
			language: ["en", "no"],
			tags: ["gguf", "quantized", "yaqa", "4-bit"],
			quantized_by: "yaqa-bot",
		});
	});

	test("shows nothing that a stranger's text could make it show", async () => {
		const clean = nodes(split(renderCard(await request())).body);
		for (const text of HOSTILE) {
			const card = renderCard(
				await request((manifest) => {
					manifest.evaluation.convention = text;
					manifest.device.name = text;
					manifest.gate.reason = text;
					manifest.sketch.key = text;
					manifest.versions = { torch: text };
					for (const layer of manifest.layers) layer.name = text;
					for (const weight of manifest.unquantized) Object.assign(weight, { name: text, type: text, reason: text });
					for (const measured of manifest.evaluation.measured)
						measured.byDomain = Object.fromEntries(Object.values(measured.byDomain).map((metrics) => [text, metrics]));
				}),
			);
			const { yaml, body } = split(card);
			assert.equal(yaml["base_model"], "owner/tiny-llama");
			const found = nodes(body);
			const count = (type: string, of: typeof found): number => of.filter((node) => node.type === type).length;
			for (const type of ["image", "link", "heading", "code"])
				assert.equal(count(type, found), count(type, clean), `${type} with ${text}`);
			for (const node of found) {
				if (node.type === "html") assert.match(node.value ?? "", /^<\/?(details|summary)/);
				assert.doesNotMatch(node.url ?? "", /evil|javascript/);
			}
			assert.doesNotMatch(body, /@everyone|<script|<img|\u202e|\u0000/);
		}
	});

	test("says so when the two-sided result did not win", async () => {
		const manifest = await readTinyManifest("w4a16");
		assert.match(
			gateSentence(manifest),
			/YAQA \(two-sided\) measured .*: 23 % lower than GPTQ \(one-sided\) .* 41 % lower than round to nearest/,
		);
		manifest.quantizer = "one-sided";
		manifest.gate.winner = "one-sided";
		assert.match(gateSentence(manifest), /GPTQ \(one-sided\) measured .* The two-sided result did not win here/);
	});

	test("tells of a smaller group than the recipe's, and of a sketch that rests on few tokens", async () => {
		const manifest = await readTinyManifest("w4a16");
		assert.doesNotMatch(provenance(manifest, "https://hub"), /groups of 64, not|few tokens/);
		manifest.fittedGroup = { asked: 128, used: 64, askedLinears: 2 };
		manifest.sketch.warning = "it was taken on 300 calibration tokens; 8,192 or more are advised";
		const text = provenance(manifest, "https://hub");
		assert.match(text, /in groups of 64, not 128:\*\* 128 divides the widths of 2 linears only/);
		assert.match(text, /rests on few tokens:\*\* it was taken on 300 calibration tokens/);
	});

	test("tells of an original that is released quantized", async () => {
		const manifest = await readTinyManifest("w4a16");
		assert.doesNotMatch(provenance(manifest, "https://hub"), /released in/);
		manifest.source.stored = "float8";
		assert.match(provenance(manifest, "https://hub"), /\*\*the original is released in float8\*\*, and counts as that/);
	});

	test("tells what embedding and output layer are stored as", async () => {
		const besides = async (recipe: TinyRecipe) => unquantizedSentence(await readTinyManifest(recipe)).join("");
		assert.match(await besides("onnx:q4"), /`model\.embed_tokens\.weight` as float32 \(/);
		assert.match(
			await besides("onnx:q4,embedding=q8"),
			/`model\.embed_tokens\.weight` as int8, blocks of 32 \(embedding or output layer, rounded to nearest\)\./,
		);
		assert.match(await besides("gguf:q4_0"), /as Q8\\?_0 \(embedding or output layer, rounded to nearest\)/);
		const manifest = await readTinyManifest("w4a16");
		const routers = Array.from({ length: 30 }, (_, index) => ({
			name: `gate.${index}`,
			type: "float16",
			reason: "small",
		}));
		assert.match(
			unquantizedSentence({ ...manifest, unquantized: routers }).join(""),
			/`gate\.3` and 26 more as float16/,
		);
		assert.deepEqual(unquantizedSentence({ ...manifest, unquantized: [] }), []);
	});

	test("tells the types of a mix, and whether it beat one type for all", async () => {
		const manifest = await readTinyManifest("gguf,bpw=5");
		assert.match(
			mixSentence(manifest).join(""),
			/within 5\.00 bits a weight, embedding and output layer not counted: 4 × Q4\\?_0, 2 × Q5\\?_0, 1 × Q5\\?_K, 4\.89 bits a weight; the mix measured .* Q4\\?_0 for all \(4\.5/,
		);
		if (manifest.mixed) {
			manifest.mixed.published = "uniform";
			manifest.mixed.uniform.type = "](javascript:x)";
		}
		assert.match(mixSentence(manifest).join(""), /no mix measured better/);
		assert.doesNotMatch(mixSentence(manifest).join(""), /[^\\]\]\(javascript/i);
		assert.deepEqual(mixSentence(await readTinyManifest("gguf:q4_0")), []);
	});

	test("tells a budget of bytes in the words of the recipe, and the bits that came of it", async () => {
		const manifest = await readTinyManifest("gguf,bpw=5");
		manifest.recipe = "gguf,bytes=4.5gib";
		Object.assign(manifest.mixed ?? {}, { targetBitsPerWeight: null, targetBytes: 4_831_838_208 });
		assert.match(
			mixSentence(manifest).join(""),
			/within 4\.5GiB for the files together, with embedding, output layer, tokenizer and headers: 4 × Q4/,
		);
		const { yaml } = split(renderCard({ ...(await request()), manifests: [manifest] }));
		assert.deepEqual(yaml["tags"], ["gguf", "quantized", "yaqa", "4-bit"]);
	});

	test("tells of tuned scales where they were a contender, and only there", async () => {
		const given = await request();
		assert.doesNotMatch(renderCard(given), /tuned/);
		for (const manifest of given.manifests) {
			const [best] = manifest.evaluation.measured;
			assert.ok(best !== undefined);
			manifest.evaluation.measured.push({ ...best, quantizer: "two-sided-tuned" });
			manifest.gate.selection.push({ quantizer: "two-sided-tuned", klNats: { mean: 0.001, standardError: 0.0001 } });
			manifest.gate.winner = "two-sided-tuned";
			manifest.quantizer = "two-sided-tuned";
		}
		const card = renderCard(given);
		for (const text of [
			"**YAQA (two-sided, scales tuned)** (these files)",
			"*Scales tuned* means",
			"It is what is published.",
		]) {
			assert.ok(card.includes(text), text);
		}
		assert.doesNotMatch(card, /did not win/);
	});

	test("lists every file size and both quantizers it was compared with", async () => {
		const { body } = split(renderCard(await request()));
		for (const text of [
			"round to nearest",
			"GPTQ (one-sided)",
			"**YAQA (two-sided)** (these files)",
			"llama-cli -hf bot/tiny-llama-YAQA-GGUF:Q4_0",
			"ollama run hf.co/bot/tiny-llama-YAQA-GGUF:Q4_0",
			'gguf_file="tiny-llama-Q4_0.gguf"',
		]) {
			assert.ok(body.includes(text), text);
		}
	});
});

describe("the status comment", () => {
	test("fits the Hub's limit, mentions nobody and keeps its trailer whole", () => {
		for (const text of HOSTILE) {
			const status = renderStatus(
				{
					sourceRepo: "owner/x",
					jobs: [
						{
							id: "3f0d5a52-6b3a-4f5e-9f0e-1d2c3b4a5f60",
							sourceSha: "1".repeat(40),
							state: "failed",
							statusText: text,
							refusal: { code: "internal", message: text, remedy: text },
						},
					],
					variants: Array.from({ length: 300 }, (_, index) => ({
						recipe: `w4a16,refine=${index}`,
						sourceSha: "1".repeat(40),
						jobId: "x",
						state: "failed" as const,
						targetRepo: "bot/x",
						manifest: null,
						refusal: { code: "internal" as const, message: text.repeat(20), remedy: `--> ${text}` },
					})),
					refused: { sha: null, refusal: { code: "pickle-only", message: text, remedy: text } },
				},
				{ hubUrl: "https://hub.example", publicUrl: null, botName: "yaqa-bot" },
			);
			assert.ok(status.length <= 65_536, String(status.length));
			assert.doesNotMatch(status, /@everyone|<script|<img|<\/details/);
			const trailer = /<!-- (\{[^\n]*\}) -->$/.exec(status)?.[1] ?? "";
			assert.equal(JSON.parse(trailer).refused, "pickle-only");
			assert.equal(status.split("<!--").length, 2);
		}
	});
	test("is the same text for the same state", () => {
		const view = { sourceRepo: "owner/x", jobs: [], variants: [], refused: null };
		const links = { hubUrl: "https://hub.example", publicUrl: null, botName: "yaqa-bot" };
		assert.equal(renderStatus(view, links), renderStatus(view, links));
	});
});

describe("figures", () => {
	test("show as many digits as the error allows", () => {
		assert.equal(formatEstimate({ mean: 0.0123456, standardError: 0.00041 }), "0.01235 ± 0.00041");
		assert.equal(formatEstimate({ mean: 12.3, standardError: 1.2 }), "12.3 ± 1.2");
		assert.equal(formatEstimate({ mean: 0.5, standardError: 0 }), "0.500");
		assert.equal(formatNumber(0), "0");
		assert.equal(formatNumber(1234.5), "1235");
		assert.equal(formatNumber(1.5e-9), "1.50e-9");
		assert.equal(formatNumber(Number.NaN), "–");
		assert.equal(formatBytes(5_234_567), "5.2 MB");
		assert.equal(formatBytes(4_567_000_000), "4.57 GB");
		assert.equal(comparison(0.8, 1), "20 % lower");
		assert.equal(comparison(1.001, 1), "the same within half a percent");
		assert.equal(comparison(1, 0), "not comparable");
	});
	test("plain words stay as they are", () => {
		assert.equal(
			markdownText("Tiny-Llama 1.1B (chat), v0.3: 50% smaller!"),
			"Tiny-Llama 1.1B (chat), v0.3: 50% smaller!",
		);
		assert.equal(markdownCode("a`b|c<d>"), "`a'b¦c‹d›`");
		assert.equal(markdownText("0.1.0"), "0.1.0");
		assert.equal(markdownText("1. one"), "1\\. one");
	});
});

test("the card of a repo made for one commit says so at its top, in place of what is older", async () => {
	const made = await request();
	const revision = made.manifests[0]?.source.revision ?? "";
	const card = renderCard({
		...made,
		repo: `bot/tiny-llama-YAQA-GGUF${commitSuffix(revision)}`,
		newestSha: "b".repeat(40),
	});
	assert.match(card, new RegExp(`^# tiny-llama · GGUF · YAQA · at ${revision.slice(0, 8)}$`, "m"));
	assert.ok(card.includes(`> These files are **of the commit [\`${revision.slice(0, 8)}\`]`));
	assert.ok(card.includes(`main branch stood at [\`${"b".repeat(8)}\`]`));
	assert.doesNotMatch(card, /of an older commit/);
});

describe("whose figures the card shows", () => {
	const engine = {
		name: "llama.cpp",
		version: "v1 (node-llama-cpp 2)",
		klNats: { mean: 0.0123, standardError: 0.0011 },
		topOneAgreement: 0.987,
		positions: 512,
		windowKlNats: 0.02,
		tokens: { texts: 20, equal: 19, different: ["cafe\u0301"] },
		greedy: { tokens: 32, equal: 30 },
	};

	test("the engine's, by name and version, with what differs", async () => {
		const card = renderCard(
			await request((manifest) => {
				manifest.engine = engine;
				manifest.verification.window = { tokens: 4096, length: 4160, klNats: 0.019 };
			}),
		);
		assert.match(card, /\| `gguf:q4_0` \| .* \| 0\.0123 ± 0\.0011 \| 98\.70 % \|/);
		assert.match(card, /in llama\.cpp v1 \(node-llama-cpp 2\)\*\*: KL 0\.0123 ± 0\.0011 nats a token/);
		assert.match(
			card,
			/\| these files in llama\.cpp v1 \(node-llama-cpp 2\), at 512 positions of the verification \| 0\.0123 ± 0\.0011 \| – \| – \| 98\.70 % \| – \|/,
		);
		assert.match(card, /Beyond the sliding window of 4096 tokens its KL is 0\.0200/);
		assert.match(
			card,
			/cuts 19 of 20 hard texts as the original's\. It cuts otherwise, of small consequence: `cafe\u0301`/,
		);
		assert.match(card, /the original's first 30 of 32 tokens/);
	});

	test("what the importance matrix beside the files is for, and no size that counts it", async () => {
		const manifest = await readTinyManifest("gguf:q4_k_m");
		const [, name] = /imatrix\/(imatrix-[0-9a-f]{8}\.gguf)/.exec(JSON.stringify(manifest.files)) ?? [];
		const card = renderCard({ ...(await request()), manifests: [manifest] });
		assert.match(card, new RegExp(`\`imatrix/${name}\`: the importance matrix of the calibration text`));
		assert.match(card, /hf-file tiny-llama-Q4_K_M\.gguf|bot\/tiny-llama-YAQA-GGUF:Q4_K_M/);
		assert.doesNotMatch(renderCard(await request()), /importance matrix/);
	});

	test("FP4 by the name that people look for, with the servers that run it", async () => {
		const manifest = await readTinyManifest("nvfp4");
		const card = renderCard({ ...(await request()), repo: "bot/tiny-llama-YAQA-NVFP4", manifests: [manifest] });
		const { yaml, body } = split(card);
		assert.deepEqual(yaml["tags"], ["compressed-tensors", "quantized", "yaqa", "4-bit", "nvfp4"]);
		assert.match(body, /vllm serve bot\/tiny-llama-YAQA-NVFP4/);
	});
	test("that MLX files were decoded and not run, and how Macs run them", async () => {
		const manifest = await readTinyManifest("mlx:3bit");
		const card = renderCard({ ...(await request()), repo: "bot/tiny-llama-YAQA-MLX-3bit", manifests: [manifest] });
		const { yaml, body } = split(card);
		assert.equal(yaml["library_name"], "mlx");
		assert.deepEqual(yaml["tags"], ["mlx", "quantized", "yaqa", "3-bit"]);
		assert.match(body, /the files were \*\*decoded, not run\*\*/);
		assert.match(body, /mlx_lm\.generate --model bot\/tiny-llama-YAQA-MLX-3bit --prompt/);
		assert.match(body, /lms get https:\/\/hub\.example\/bot\/tiny-llama-YAQA-MLX-3bit/);
		assert.match(body, /8-bit, groups of 64/);
	});

	test("that no engine measured the files, where the operator allowed it", async () => {
		const card = renderCard(
			await request((manifest) => {
				manifest.unmeasured = { reason: "no binary for linux-riscv64" };
			}),
		);
		assert.match(card, /was not measured by the engine that runs it\*\* \(no binary for linux-riscv64\)/);
	});

	test("a window that is longer than what was run", async () => {
		const card = renderCard(
			await request((manifest) => {
				manifest.engine = { ...engine, windowKlNats: null };
				manifest.verification.window = { tokens: 131_072, length: null, klNats: null };
			}),
		);
		assert.match(card, /The sliding window of 131072 tokens is longer than what was run/);
	});
});
