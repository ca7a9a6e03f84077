import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { listWebhooks } from "../../src/hub/list-webhooks.ts";
import { BOT, root, run, temporaryFolder, testHub } from "../support/local-hub-fixture.ts";

test("what is watched is added and taken out in the file, comments kept, and the webhook follows", async (t: TestContext) => {
	const hub = await testHub(t);
	const folder = await temporaryFolder(t);
	const path = join(folder, "bot.yaml");
	writeFileSync(
		path,
		"# Ours.\nhub:\n  url: HUB # local\nserver:\n  publicUrl: http://127.0.0.1:1\n".replace("HUB", hub.url),
	);
	const command = async (...args: string[]) => {
		const environment = { YAQA_BOT_HUB_TOKEN: BOT, YAQA_BOT_WEBHOOK_SECRET: "long-enough-for-it" };
		const program = [join(root, "src/main.ts"), "watch", ...args, "--config", path, "--json"];
		const { code, stdout } = await run(process.execPath, program, environment);
		return { code, json: JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Record<string, unknown> };
	};
	const added = await command("add", "owner", "stranger/model", "owner");
	assert.equal(added.code, 0);
	assert.deepEqual(
		[added.json["namespaces"], added.json["repos"], added.json["registration"]],
		[["owner"], ["stranger/model"], "created"],
	);
	assert.match(readFileSync(path, "utf8"), /# Ours\.[\s\S]*# local/);
	const access = { hubUrl: hub.url, accessToken: BOT };
	assert.deepEqual((await listWebhooks(access))[0]?.watched.map((one) => one.name).toSorted(), [
		"owner",
		"stranger/model",
	]);

	const removed = await command("remove", "stranger/model");
	assert.deepEqual([removed.json["repos"], removed.json["registration"]], [[], "updated"]);
	const listed = await command("list");
	assert.deepEqual([listed.json["changed"], listed.json["webhook"]], [0, "active, for owner"]);
	assert.equal((await command("add", "../etc")).code, 2);
	assert.equal((await command("forget", "owner")).code, 2);
	assert.equal((await command("add")).code, 2);
});
