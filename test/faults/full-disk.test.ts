import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { followJob, jobsOf, waitFor } from "../../demo/follow-job.ts";
import { venvPython } from "../../demo/stack.ts";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { startTinyStack, type TinyStack } from "../support/tiny-stack.ts";

const run = promisify(execFile);

async function mountSmallDisk(path: string, size: string): Promise<boolean> {
	try {
		await run("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path]);
		return true;
	} catch {
		return false;
	}
}

describe("a full disk", { timeout: 800_000 }, () => {
	const dataDirectory = mkdtempSync(join(tmpdir(), "yaqa-disk-"));
	const runs = join(dataDirectory, "bot", "runs");
	let tiny: TinyStack | null = null;
	let mounted = false;
	before(async () => {
		if (!existsSync(venvPython)) return;
		mkdirSync(runs, { recursive: true });
		mounted = await mountSmallDisk(runs, "1m");
		if (!mounted) return;
		tiny = await startTinyStack({ dataDirectory });
		await tiny.stack.startBot();
		await tiny.stack.webhookIsSetUp();
	});
	after(async () => {
		await tiny?.stack.close();
		if (mounted) await run("umount", [runs]);
		await tiny?.close();
	});

	test("leaves a failed job with its reason, and asking again after it was freed works", async (context) => {
		if (tiny === null) {
			context.skip(existsSync(venvPython) ? "skipped: this user cannot mount a tmpfs" : "skipped: no gpu-runner/.venv");
			return;
		}
		const { stack } = tiny;
		const repo = "demo/full";
		await tiny.push(repo, await tiny.modelFiles());
		const job = await waitFor("A job", async () => (await jobsOf(stack.botUrl, repo)).at(0) ?? null, { seconds: 90 });
		const failed = await followJob({ botUrl: stack.botUrl, id: job.id, onEvent: () => {}, patienceSeconds: 300 });
		assert.equal(failed.job.state, "failed");
		assert.equal(failed.job.refusal?.code, "disk-full", JSON.stringify(failed.job.refusal));
		assert.deepEqual(await tiny.botRepos(), []);

		await run("mount", ["-o", "remount,size=512m", runs]);
		await createDiscussion({
			hubUrl: stack.hub.url,
			accessToken: stack.people.owner.token,
			repo,
			title: "Please try again",
			description: "@yaqa-bot quantize",
		});
		const done = await waitFor(
			"The job's second try",
			async () => (await jobsOf(stack.botUrl, repo)).find((candidate) => candidate.state === "done") ?? null,
			{ seconds: 300 },
		);
		assert.ok(done);
		assert.deepEqual(await tiny.botRepos(), ["yaqa-bot/full-YAQA-GGUF", "yaqa-bot/full-YAQA-W4A16"]);
	});
});
