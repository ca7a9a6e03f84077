import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../support/local-hub-fixture.ts";

const skip = process.platform === "linux" ? false : "skipped: no /proc";

test("a bot that is up has no secret in its environment or its arguments, and has all of them", { skip }, async () => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-secrets-"));
	const secrets = {
		YAQA_BOT_HUB_TOKEN: "hf_canary_of_the_publisher",
		YAQA_BOT_READ_TOKEN: "hf_canary_of_the_reader",
		YAQA_BOT_WEBHOOK_SECRET: "canary of nobody".replaceAll(" ", "-"),
		// The shell in between must not take it for its own.
		YAQA_BOT_OPERATOR_TOKEN: "canary-$(id)`id`-$HOME-END_OF_SECRETS",
	};
	const bot = spawn(process.execPath, [join(root, "src", "main.ts"), "serve", "--port", "0"], {
		cwd: folder,
		env: {
			PATH: process.env["PATH"] ?? "",
			HOME: folder,
			HF_ENDPOINT: "http://127.0.0.1:9",
			YAQA_BOT_DATA_DIR: join(folder, "data"),
			...secrets,
		},
		stdio: ["ignore", "ignore", "pipe"],
	});
	try {
		let said = "";
		const address = await new Promise<string>((resolve, reject) => {
			bot.stderr.on("data", (chunk: Buffer) => {
				said += chunk.toString("utf8");
				const found = /"address":"(http:[^"]+)"/.exec(said);
				if (found?.[1] !== undefined) resolve(found[1]);
			});
			bot.on("close", () => reject(new Error(said)));
		});
		for (const file of ["environ", "cmdline"]) {
			assert.doesNotMatch(readFileSync(`/proc/${bot.pid}/${file}`, "utf8"), /canary/, file);
		}
		assert.doesNotMatch(said, /canary/);
		const sent = (secret: string) =>
			fetch(`${address}/webhooks/hub`, {
				method: "POST",
				headers: { "Content-Type": "application/json", "X-Webhook-Secret": secret },
				body: JSON.stringify({ event: { action: "update", scope: "x" }, repo: { type: "model", name: "a/b" } }),
			});
		assert.equal((await sent(secrets.YAQA_BOT_WEBHOOK_SECRET)).ok, true, "the secret was handed over");
		assert.equal((await sent("another-secret")).ok, false);
	} finally {
		const ended = new Promise((resolve) => bot.on("close", resolve));
		bot.kill("SIGTERM");
		await ended;
		rmSync(folder, { recursive: true, force: true });
	}
});
