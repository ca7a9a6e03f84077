import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { z } from "zod";
import { cleanEnvironment, venvPython } from "../../demo/stack.ts";
import { startTinyStack } from "../faults/tiny-stack.ts";

const run = promisify(execFile);
const skip = existsSync(venvPython) ? false : "skipped: no gpu-runner/.venv (npm run setup)";

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

test("with the stock Python client alone: ask, watch the answer change, follow the link, load", {
	skip,
	timeout: 400_000,
}, async () => {
	const tiny = await startTinyStack();
	try {
		await tiny.stack.startBot();
		await tiny.stack.webhookIsSetUp();
		const script = fileURLToPath(new URL("./a_person.py", import.meta.url));
		const { stdout } = await run(venvPython, [script, tiny.model, "demo/asked"], {
			env: cleanEnvironment({
				HF_ENDPOINT: tiny.stack.hub.url,
				HF_TOKEN: tiny.stack.people.owner.token,
				HF_HOME: `${tiny.stack.dataDirectory}/person`,
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
		assert.equal(seen.variant, "yaqa-bot/asked-YAQA-GGUF");
		assert.equal(seen.address, `${tiny.stack.hub.url}/${seen.variant}`);
		assert.match(seen.size, /\d/);
		assert.match(seen.kl, /\d ± /);
		assert.equal(seen.card, "demo/asked");
		// Eight bits of a model that is far from saying nothing: what was loaded is that model.
		assert.ok(seen.measuredKl >= -1e-6 && seen.measuredKl < 0.05 * seen.uniformKl, JSON.stringify(seen));
		assert.deepEqual(await tiny.botRepos(), [seen.variant]);
	} finally {
		await tiny.close();
	}
});
