import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { listFiles, modelInfo } from "@huggingface/hub";
import { z } from "zod";
import { processesBelow } from "../../demo/end-runs.ts";
import { followJob, getJobPage, jobsOf, waitFor } from "../../demo/follow-job.ts";
import { cleanEnvironment, root, venvPython } from "../../demo/stack.ts";
import { commentOnDiscussion } from "../../src/hub/comment-on-discussion.ts";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { commentsOf } from "../../src/hub/discussion.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import { listDiscussions } from "../../src/hub/list-discussions.ts";
import { Manifest } from "../../src/protocol/manifest.ts";
import { markdownText } from "../../src/publish/escape.ts";
import { formatEstimate } from "../../src/publish/figures.ts";
import { manifestPath } from "../../src/publish/published-manifests.ts";
import { shareKernels } from "../support/shared-kernels.ts";

const Estimate = z.strictObject({ mean: z.number().positive(), standardError: z.number().positive() });
const Result = z.strictObject({
	ok: z.literal(true),
	source: z.strictObject({ repo: z.string(), revision: z.string().regex(/^[0-9a-f]{40}$/) }),
	variants: z.array(
		z.strictObject({
			recipe: z.string(),
			repo: z.string(),
			files: z
				.array(z.strictObject({ path: z.string(), size: z.int(), sha256: z.string().regex(/^[0-9a-f]{64}$/) }))
				.min(1),
			klNats: Estimate,
			baselines: z.strictObject({ rtn: Estimate, gptq: Estimate }),
			gate: z.string(),
			verified: z.boolean(),
		}),
	),
	seconds: z.strictObject({ setup: z.number(), job: z.number() }),
});
type Result = z.infer<typeof Result>;

const Person = z.object({ name: z.string(), token: z.string() });
const Accounts = z.object({
	hubUrl: z.url(),
	botUrl: z.url(),
	owner: Person,
	stranger: Person,
	bot: Person,
});

const ready = existsSync(venvPython);

/** Over two such figures on the same text, one is smaller beyond what chance explains. */
function below(smaller: z.infer<typeof Estimate>, larger: z.infer<typeof Estimate>): boolean {
	return smaller.mean < larger.mean;
}

describe("npm run demo", { skip: ready ? false : "skipped: no gpu-runner/.venv (npm run setup)" }, () => {
	const dataDirectory = mkdtempSync(join(tmpdir(), "yaqa-e2e-"));
	let demo: ChildProcess;
	let ended: Promise<unknown>;
	let result: Result;
	let accounts: z.infer<typeof Accounts>;
	let sourceRepo: string;

	before(
		async () => {
			shareKernels(join(dataDirectory, "bot"));
			demo = spawn(
				process.execPath,
				[join(root, "scripts", "run.mjs"), "demo", "--json", "--data-dir", dataDirectory],
				{ cwd: root, detached: true, stdio: ["ignore", "pipe", "inherit"], env: cleanEnvironment({}) },
			);
			ended = once(demo, "close");
			let output = "";
			const { stdout } = demo;
			assert.ok(stdout);
			stdout.setEncoding("utf8");
			const line = await new Promise<string>((resolve, reject) => {
				stdout.on("data", (text: string) => {
					output += text;
					if (output.includes("\n")) resolve(output.trim().split("\n").at(-1) ?? "");
				});
				ended.then(() => reject(new Error(`The demo ended early. Its stdout: ${output}`)), reject);
			});
			const document: unknown = JSON.parse(line);
			const parsed = Result.safeParse(document);
			assert.ok(parsed.success, `${line}\n${parsed.success ? "" : z.prettifyError(parsed.error)}`);
			result = parsed.data;
			accounts = Accounts.parse(JSON.parse(readFileSync(join(dataDirectory, "accounts.json"), "utf8")));
			sourceRepo = result.source.repo;
		},
		{ timeout: 850_000 },
	);

	after(async () => {
		if (demo.exitCode === null && demo.signalCode === null) {
			demo.kill("SIGTERM");
			await ended;
		}
		rmSync(dataDirectory, { recursive: true, force: true });
	});

	test("publishes a GGUF, an ONNX and a compressed-tensors variant, each verified", () => {
		const recipes = result.variants.map((variant) => variant.recipe);
		for (const recipe of ["gguf:q4_0", "onnx:q4", "w4a16"]) assert.ok(recipes.includes(recipe), recipe);
		assert.deepEqual(
			result.variants.filter((variant) => !variant.verified),
			[],
		);
	});

	test("measures two-sided below GPTQ below round-to-nearest, at 4 bits on the report texts", () => {
		for (const { recipe, klNats, baselines, gate } of result.variants) {
			assert.ok(gate !== "one-sided" && gate !== "rtn", `${recipe}: ${gate}`);
			assert.ok(below(klNats, baselines.gptq), `${recipe}: ${klNats.mean} < ${baselines.gptq.mean}`);
			assert.ok(below(baselines.gptq, baselines.rtn), `${recipe}: ${baselines.gptq.mean} < ${baselines.rtn.mean}`);
		}
	});

	test("names files whose size and hash are those that the Hub serves to anybody", async () => {
		for (const { repo, files } of result.variants) {
			for (const { path, size, sha256 } of files) {
				const response = await fetch(`${accounts.hubUrl}/${repo}/resolve/main/${path}`);
				assert.equal(response.status, 200, path);
				const bytes = Buffer.from(await response.arrayBuffer());
				assert.equal(bytes.byteLength, size, path);
				assert.equal(createHash("sha256").update(bytes).digest("hex"), sha256, path);
			}
		}
	});

	test("publishes public repos with a card that leads back to the source", async () => {
		for (const repo of new Set(result.variants.map((variant) => variant.repo))) {
			const info = await modelInfo({
				hubUrl: accounts.hubUrl,
				name: repo,
				additionalFields: ["tags", "cardData"],
			});
			assert.equal(info.private, false, repo);
			assert.ok(info.tags.includes(`base_model:quantized:${sourceRepo}`), info.tags.join(" "));
			const card = await (await fetch(`${accounts.hubUrl}/${repo}/raw/main/README.md`)).text();
			assert.match(card, /GPTQ/);
			const paths: string[] = [];
			for await (const file of listFiles({ hubUrl: accounts.hubUrl, repo: { type: "model", name: repo } })) {
				paths.push(file.path);
			}
			assert.ok(
				paths.some((path) => path.endsWith(".png")),
				`a plot in ${repo}: ${paths.join(" ")}`,
			);
		}
	});

	test("card, manifest and llama.cpp agree, and the card names the engine", async () => {
		const gguf = result.variants.find(({ recipe }) => recipe === "gguf:q4_0");
		assert.ok(gguf !== undefined);
		const raw = `${accounts.hubUrl}/${gguf.repo}/raw/main`;
		const { verification, engine, evaluation, quantizer } = Manifest.parse(
			await (await fetch(`${raw}/${manifestPath(gguf.recipe)}`)).json(),
		);
		assert.ok(engine != null);
		const { klNats } = engine;
		// Over the same tokens: llama.cpp multiplies with activations of 8 bits, which alone moves a small KL by some hundredths.
		const allowed = Math.max(klNats.standardError, verification.standardError ?? 0, 0.1 * verification.klNats);
		assert.ok(Math.abs(klNats.mean - verification.klNats) <= allowed, `${klNats.mean} and ${verification.klNats}`);
		assert.deepEqual(engine.tokens, { texts: engine.tokens.texts, equal: engine.tokens.texts, different: [] });
		assert.ok(engine.tokens.texts > 10);
		const card = await (await fetch(`${raw}/README.md`)).text();
		const said = `**in llama.cpp ${markdownText(engine.version, 100)}**: KL ${formatEstimate(klNats)} nats a token`;
		assert.ok(card.includes(said), card);
		assert.match(engine.version, /\d/);
		// Over other texts, by decoding: what the roundings are compared by.
		const report = evaluation.measured.find((row) => row.quantizer === quantizer)?.report.klNats;
		assert.ok(report !== undefined && card.includes(`(these files) | **${formatEstimate(report)}** |`), card);
	});

	test("leaves no staging repo behind", async () => {
		const published = [...new Set(result.variants.map((variant) => variant.repo))].sort();
		await waitFor(
			"The removal of the staging repo",
			async () => {
				const response = await fetch(`${accounts.hubUrl}/api/models?author=${accounts.bot.name}`, {
					headers: { authorization: `Bearer ${accounts.bot.token}` },
				});
				const models = z.array(z.object({ id: z.string() })).parse(await response.json());
				const names = models.map((model) => model.id).sort();
				return names.join() === published.join() ? true : null;
			},
			{ seconds: 60 },
		);
	});

	test("announces in one discussion of the source that links every published repo", async () => {
		const discussions = [];
		for await (const entry of listDiscussions({ hubUrl: accounts.hubUrl, repo: sourceRepo })) discussions.push(entry);
		assert.deepEqual(
			discussions.map((entry) => entry.author?.name),
			[accounts.bot.name],
		);
		const [entry] = discussions;
		assert.ok(entry);
		const [opening] = commentsOf(await getDiscussion({ hubUrl: accounts.hubUrl, repo: sourceRepo, num: entry.num }));
		for (const { repo } of result.variants) assert.ok(opening?.data.latest.raw?.includes(repo), repo);
	});

	test("shows the variants in the catalogue, for people and for programs", async () => {
		const models = await (await fetch(accounts.botUrl, { headers: { accept: "text/html" } })).text();
		assert.ok(models.includes(sourceRepo), sourceRepo);
		const variants = new URL("/variants", accounts.botUrl);
		const page = await (await fetch(variants, { headers: { accept: "text/html" } })).text();
		for (const { repo } of result.variants) assert.ok(page.includes(repo), repo);
		const twin = await (await fetch(variants, { headers: { accept: "application/json" } })).json();
		const listed = z.object({ variants: z.array(z.object({ recipe: z.string() })) }).parse(twin);
		assert.deepEqual(
			listed.variants.map((variant) => variant.recipe).sort(),
			result.variants.map((variant) => variant.recipe).sort(),
		);
	});

	test("says how long the job took, by the job's own clock", async () => {
		const [job] = await jobsOf(accounts.botUrl, sourceRepo);
		assert.ok(job?.finishedAt);
		const seconds = (job.finishedAt.getTime() - job.createdAt.getTime()) / 1000;
		assert.ok(Math.abs(result.seconds.job - seconds) <= 0.1, `${result.seconds.job} and ${seconds}`);
	});

	describe("and a comment in a discussion", () => {
		let num: number;

		/** Comments on the discussion and waits for the bot's answer that fits. */
		async function ask(person: z.infer<typeof Person>, text: string, fits: RegExp): Promise<string> {
			const access = { hubUrl: accounts.hubUrl, accessToken: person.token };
			const asked = await commentOnDiscussion({ ...access, repo: sourceRepo, num, comment: text });
			return await waitFor(
				`The answer to ${JSON.stringify(text)}`,
				async () => {
					const comments = commentsOf(await getDiscussion({ ...access, repo: sourceRepo, num }));
					const place = comments.findIndex((comment) => comment.id === asked.id);
					const answers = comments.slice(place + 1).filter((comment) => comment.author?.name === accounts.bot.name);
					return answers.map((answer) => answer.data.latest.raw ?? "").find((raw) => fits.test(raw)) ?? null;
				},
				{ seconds: 90 },
			);
		}

		before(async () => {
			const created = await createDiscussion({
				hubUrl: accounts.hubUrl,
				accessToken: accounts.owner.token,
				repo: sourceRepo,
				title: "Smaller files?",
				description: "I should like an 8-bit file too.",
			});
			num = created.num;
		});

		test("gets help when the bot does not understand", async () => {
			await ask(accounts.owner, "@yaqa-bot do something nice", /quantize/);
		});

		test("is refused to somebody without rights, with the reason", async () => {
			await ask(accounts.stranger, "@yaqa-bot quantize 8bit gguf", /owner|member|rights|may/i);
			const jobs = await jobsOf(accounts.botUrl, sourceRepo);
			assert.equal(jobs.length, 1);
		});

		test("inside a quote or code asks for nothing", async () => {
			await commentOnDiscussion({
				hubUrl: accounts.hubUrl,
				accessToken: accounts.owner.token,
				repo: sourceRepo,
				num,
				comment: "> @yaqa-bot quantize 8bit gguf\n\n`@yaqa-bot quantize 8bit gguf`\n",
			});
			// A later request is answered after this one was looked at.
			await ask(accounts.owner, "@yaqa-bot help", /quantize/);
			assert.equal((await jobsOf(accounts.botUrl, sourceRepo)).length, 1);
		});

		test("from the owner gives the 8-bit GGUF, with the sketch of the earlier job", { timeout: 400_000 }, async () => {
			await ask(accounts.owner, "@yaqa-bot quantize 8bit gguf", /gguf:q8_0/);
			const job = await waitFor(
				"A second job",
				async () => {
					const jobs = await jobsOf(accounts.botUrl, sourceRepo);
					return jobs.length > 1 ? (jobs[0] ?? null) : null;
				},
				{ seconds: 90 },
			);
			const sketch: string[] = [];
			const end = await followJob({
				botUrl: accounts.botUrl,
				id: job.id,
				patienceSeconds: 300,
				onEvent: (happening) => {
					if (happening.kind === "runner" && happening.event.event === "stage" && happening.event.stage === "sketch") {
						sketch.push(happening.event.status);
					}
				},
			});
			assert.equal(end.job.state, "done", JSON.stringify(end.job.refusal));
			assert.ok(sketch.includes("skipped"), `the sketch stage: ${sketch.join(", ")}`);
			const variant = end.variants.find((candidate) => candidate.recipe === "gguf:q8_0");
			assert.ok(variant?.klNats);
			const gguf = result.variants.find((candidate) => candidate.recipe === "gguf:q4_0");
			assert.equal(variant.repo, gguf?.repo);
			assert.ok(variant.klNats.mean < (gguf?.klNats.mean ?? 0) / 10, "8 bits lie far closer than 4");

			const access = { hubUrl: accounts.hubUrl, accessToken: accounts.owner.token };
			const answer = await waitFor(
				"The final answer",
				async () => {
					const comments = commentsOf(await getDiscussion({ ...access, repo: sourceRepo, num }));
					const texts = comments.map((comment) => comment.data.latest.raw ?? "");
					return texts.find((raw) => raw.includes(variant.repo) && raw.includes("gguf:q8_0")) ?? null;
				},
				{ seconds: 90 },
			);
			assert.match(answer, /gguf:q8_0/);
			for (const file of gguf?.files ?? []) {
				const response = await fetch(`${accounts.hubUrl}/${variant.repo}/resolve/main/${file.path}`, {
					method: "HEAD",
				});
				assert.equal(response.status, 200, `${file.path} is still there`);
			}
			assert.equal((await getJobPage(accounts.botUrl, job.id)).variants.length, 1);
		});
	});

	test("ends on Ctrl-C with status 0 and leaves no process", { timeout: 60_000 }, async () => {
		assert.ok(demo.pid);
		// What a terminal does: the signal goes to the whole foreground group.
		process.kill(-demo.pid, "SIGINT");
		await ended;
		assert.equal(demo.exitCode, 0);
		assert.deepEqual(await processesBelow(dataDirectory), []);
	});
});
