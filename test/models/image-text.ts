import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, openAsBlob, rmSync } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { downloadFile } from "@huggingface/hub";
import { z } from "zod";
import { getJobPage, jobsOf, waitFor } from "../../demo/follow-job.ts";
import { root, venvPython } from "../../demo/stack.ts";
import { startTinyStack, type TinyStack } from "../support/tiny-stack.ts";

/**
 * `npm run test:images`: models of images and text, pushed as they are released, become variants that still see. Tiny
 * random ones, through a whole bot; minutes.
 */

const run = promisify(execFile);
/** By recipe, the engine of `open_folder.py` that images are shown by; llama.cpp sees through a companion of its own. */
const RECIPES: Readonly<Record<string, string | null>> = {
	"gguf:q8_0": null,
	"w8a16,group=32": "transformers",
	"gptq:8,group=32": "plain-gptq",
};
const Seen = z.object({
	decided: z.number(),
	topEqual: z.boolean(),
	topShare: z.number(),
	differs: z.number(),
	byImage: z.number(),
});

describe("an image-text model pushed as it is released", { timeout: 5_000_000 }, () => {
	let tiny: TinyStack;
	let work = "";
	before(async () => {
		work = mkdtempSync(join(tmpdir(), "yaqa-images-"));
		tiny = await startTinyStack({
			configuration: { watch: { namespaces: ["demo"], recipes: Object.keys(RECIPES) } },
		});
		await tiny.stack.startBot();
		await tiny.stack.webhookIsSetUp();
	});
	after(async () => {
		await tiny.close();
		rmSync(work, { recursive: true, force: true });
	});

	async function downloaded(repo: string): Promise<string> {
		const folder = join(work, repo.replace("/", "--"));
		for (const path of await tiny.filesOf(repo)) {
			const blob = await downloadFile({
				hubUrl: tiny.stack.hub.url,
				accessToken: tiny.stack.people.bot.token,
				repo: { type: "model", name: repo },
				path,
			});
			assert.ok(blob !== null, path);
			mkdirSync(dirname(join(folder, path)), { recursive: true });
			await writeFile(join(folder, path), Buffer.from(await blob.arrayBuffer()));
		}
		return folder;
	}

	for (const kind of ["gemma3", "qwen3_5", "qwen3_vl"]) {
		test(`${kind}: variants in every container, and the same image gives the original's most likely tokens`, async (context) => {
			const source = join(work, kind);
			await run(venvPython, [join(root, "test/models/make_image_text_model.py"), kind, source]);
			const names = await readdir(source);
			const files = await Promise.all(
				names.map(async (name) => ({ path: name, content: await openAsBlob(join(source, name)) })),
			);
			const repo = `demo/tiny-${kind.replace("_", "-")}`;
			await tiny.push(repo, files);
			const page = await waitFor(
				`The job of ${repo}`,
				async () => {
					const [job] = await jobsOf(tiny.stack.botUrl, repo);
					if (job === undefined || !["done", "failed", "cancelled"].includes(job.state)) return null;
					return await getJobPage(tiny.stack.botUrl, job.id);
				},
				{ seconds: 1800 },
			);
			assert.equal(page.job.state, "done", JSON.stringify(page.job));
			for (const [recipe, engine] of Object.entries(RECIPES)) {
				const variant = page.variants.find((one) => one.recipe.split(",")[0] === recipe.split(",")[0]);
				assert.equal(variant?.state, "published", JSON.stringify(page.variants));
				if (engine === null) continue;
				const folder = await downloaded(variant.repo);
				const script = join(root, "test/models/see_image.py");
				const { stdout } = await run(venvPython, [script, engine, source, folder]);
				const seen = Seen.parse(JSON.parse(stdout.trim().split("\n").at(-1) ?? ""));
				assert.ok(seen.decided >= 12 && seen.topEqual && seen.topShare >= 0.9, `${recipe}: ${stdout}`);
				context.diagnostic(`${recipe}: ${JSON.stringify(seen)}`);
				assert.ok(seen.differs > 0, `${recipe} is not quantized: ${stdout}`);
				assert.ok(seen.byImage > 10 * seen.differs, `${recipe} does not look at the image: ${stdout}`);
			}
		});
	}
});
