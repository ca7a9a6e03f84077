import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { z } from "zod";
import { jobsOf, waitFor } from "../../demo/follow-job.ts";
import { cleanEnvironment, root, venvPython } from "../../demo/stack.ts";
import { listRepoFiles } from "../../src/hub/list-repo-files.ts";
import { type FakeGitHub, startFakeGitHub } from "../fake-github/fake-github.ts";
import { startTinyStack, type TinyStack } from "../support/tiny-stack.ts";

const run = promisify(execFile);
const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";
const REPO = "demo/asked";
const VARIANT = "yaqa-bot/asked-YAQA-GGUF";
const GITHUB_SECRET = "a-secret-of-the-persons-test";

const Seen = z.object({
	asked: z.string(),
	answer: z.string(),
	firstWords: z.array(z.string()),
	trailer: z.boolean(),
	variant: z.string(),
	address: z.string(),
	size: z.string(),
	kl: z.string(),
	card: z.string(),
	measuredKl: z.number(),
	uniformKl: z.number(),
});

/** The bot as a process of its own, the real runner and a model whose job takes seconds. */
describe("a person's path", { skip, timeout: 400_000 }, () => {
	let tiny: TinyStack;
	let github: FakeGitHub;
	let folder: string;

	before(async () => {
		folder = mkdtempSync(join(tmpdir(), "yaqa-person-"));
		github = await startFakeGitHub({
			folder,
			workflowPath: join(root, "workflows", "quantize.yml"),
			path: "",
			variables: {},
			secrets: {},
		});
		const repositories = [{ repository: github.issues.repository, model: REPO }];
		tiny = await startTinyStack({
			configuration: { requests: { github: { apiUrl: github.url, appId: github.appId, repositories } } },
			environment: {
				YAQA_BOT_GITHUB_APP_KEY: github.privateKey,
				YAQA_BOT_GITHUB_WEBHOOK_SECRET: GITHUB_SECRET,
			},
		});
		await tiny.stack.startBot();
		await tiny.stack.webhookIsSetUp();
	});
	after(async () => {
		await tiny.close();
		await github.close();
		rmSync(folder, { recursive: true, force: true });
	});

	test("with the stock Python client alone: ask, watch the answer change, follow the link, load", async () => {
		const script = fileURLToPath(new URL("./a_person.py", import.meta.url));
		const { stdout } = await run(venvPython, [script, tiny.model, REPO], {
			env: cleanEnvironment({
				HF_ENDPOINT: tiny.stack.hub.url,
				HF_TOKEN: tiny.stack.people.owner.token,
				HF_HOME: join(folder, "huggingface"),
			}),
			maxBuffer: 16 * 1024 * 1024,
		});
		const seen = Seen.parse(JSON.parse(stdout.trim().split("\n").at(-1) ?? ""));
		assert.notEqual(seen.answer, seen.asked);
		// How many of the states in between are seen depends on the moment; the first and the last are.
		assert.ok(seen.firstWords.length >= 2, seen.firstWords.join(", "));
		assert.ok(["Planned:", "Under way:"].includes(seen.firstWords[0] ?? ""), seen.firstWords[0]);
		assert.equal(seen.firstWords.at(-1), "Done");
		assert.ok(seen.trailer);
		assert.equal(seen.variant, VARIANT);
		assert.equal(seen.address, `${tiny.stack.hub.url}/${VARIANT}`);
		assert.match(seen.size, /\d/);
		assert.match(seen.kl, /\d ± /);
		assert.equal(seen.card, REPO);
		// Eight bits of a model that is far from saying nothing: what was loaded is that model.
		assert.ok(seen.measuredKl >= -1e-6 && seen.measuredKl < 0.05 * seen.uniformKl, JSON.stringify(seen));
		assert.deepEqual(await tiny.botRepos(), [VARIANT]);
	});

	test("in a GitHub issue: a signed delivery, a mark on the comment, the same answer", async () => {
		const { issues } = github;
		issues.permit("octo", "write");
		const issue = issues.open("octo", "Which files are there?", "");
		const comment = issues.comment("octo", issue, "@yaqa-bot status");
		const body = JSON.stringify(issues.payloadOf(issue, comment, "created"));
		const response = await fetch(`${tiny.stack.botUrl}/webhooks/github`, {
			method: "POST",
			headers: {
				"content-type": "application/json",
				"x-github-event": "issue_comment",
				"x-github-delivery": randomUUID(),
				"x-hub-signature-256": `sha256=${createHmac("sha256", GITHUB_SECRET).update(body).digest("hex")}`,
			},
			body,
		});
		assert.equal(response.status, 202);
		const [answer] = await waitFor(
			"The answer on GitHub",
			async () => {
				const found = issues.commentsOf(issue).filter((one) => one.login === "yaqa-bot[bot]");
				return found.length > 0 && issues.reactionsOf(issue, comment).join() === "rocket" ? found : null;
			},
			{ seconds: 60 },
		);
		assert.match(answer?.body ?? "", new RegExp(`\\| \`gguf:q8_0\` \\| \\[${VARIANT}\\]`));
		assert.deepEqual(github.breaches, []);
	});

	test("a push that leaves the model alone: the same weights, published for the new commit without a run", async () => {
		const weights = async () => {
			const { hub, people } = tiny.stack;
			const files = await listRepoFiles({
				hubUrl: hub.url,
				accessToken: people.bot.token,
				repo: VARIANT,
				revision: "main",
			});
			return files.filter((file) => file.path.endsWith(".gguf"));
		};
		const earlier = await weights();
		const wishes = "enabled: true\nrecipes: [gguf:q8_0]\n";
		const sha = await tiny.push(REPO, [{ path: ".yaqa-bot.yaml", content: new Blob([wishes]) }]);
		const job = await waitFor(
			"The job without a run",
			async () => {
				const [newest] = await jobsOf(tiny.stack.botUrl, REPO);
				return newest?.sourceSha === sha && newest.state === "done" ? newest : null;
			},
			{ seconds: 90 },
		);
		assert.equal(job.fence, 0);
		assert.deepEqual(await weights(), earlier);
		const card = await (await fetch(`${tiny.stack.hub.url}/${VARIANT}/raw/main/README.md`)).text();
		assert.match(card, new RegExp(`at \`${sha}\``));
		assert.match(card, /the weights are those of commit/);
	});
});
