import assert from "node:assert/strict";
import { lstatSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { runCommand } from "../../src/cli/run-command.ts";
import { listWebhooks } from "../../src/hub/list-webhooks.ts";
import type { LocalHubOptions } from "../../src/local-hub/start-local-hub.ts";
import {
	BOT,
	call,
	createRepo,
	OWNER,
	READER,
	SCOPED,
	STRANGER,
	temporaryFolder,
	testHub,
	users,
} from "../support/local-hub-fixture.ts";
import { recordingTerminal } from "../support/recording-terminal.ts";

const YAML = `# Ours.
hub:
  url:   HUB # local
server: {publicUrl: 'http://127.0.0.1:1'}

watch:
    recipes:   [ "gguf:q4_0" ]   # what we make
`;

async function setting(t: TestContext, options: Partial<LocalHubOptions> = {}) {
	const hub = await testHub(t, options);
	await createRepo(hub, "stranger/model", STRANGER);
	const folder = await temporaryFolder(t);
	const path = join(folder, "bot.yaml");
	const text = YAML.replace("HUB", hub.url);
	writeFileSync(path, text);
	const access = { hubUrl: hub.url, accessToken: BOT };
	return {
		hub,
		path,
		text,
		read: () => readFileSync(path, "utf8"),
		watched: async () => (await listWebhooks(access)).flatMap((one) => one.watched.map(({ name }) => name)).toSorted(),
		webhooks: () => listWebhooks(access),
		async command(args: readonly string[], token = BOT) {
			Object.assign(process.env, { YAQA_BOT_HUB_TOKEN: token, YAQA_BOT_WEBHOOK_SECRET: "long-enough-for-it" });
			const terminal = recordingTerminal();
			const code = await runCommand(["watch", ...args, "--config", path, "--json"], terminal);
			const { out: stdout, err: stderr } = terminal.said();
			const json = JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Record<string, unknown>;
			return { code, json, stderr };
		},
	};
}

test("what is watched is added and taken out, every other byte of the file kept, and the webhook follows to its end", async (t: TestContext) => {
	const place = await setting(t);
	const { command } = place;
	const link = join(place.path, "..", "link.yaml");
	symlinkSync(place.path, link);
	const added = await command(["add", "owner", "stranger/model", "owner"]);
	assert.equal(added.code, 0, added.stderr);
	assert.deepEqual(
		[added.json["namespaces"], added.json["repos"], added.json["registration"]],
		[["owner"], ["stranger/model"], "created"],
	);
	assert.equal(
		place.read(),
		place.text.replace("    recipes", "    repos: [stranger/model]\n    namespaces: [owner]\n    recipes"),
	);
	assert.deepEqual(await place.watched(), ["owner", "stranger/model"]);

	const removed = await command(["remove", "stranger/model"]);
	assert.deepEqual([removed.json["repos"], removed.json["registration"]], [[], "updated"]);
	const listed = await command(["list"]);
	assert.deepEqual([listed.json["changed"], listed.json["webhook"]], [0, "active, for owner"]);
	const last = await command(["remove", "owner"]);
	assert.deepEqual([last.json["registration"], last.json["webhook"]], ["removed", "not registered"]);
	assert.deepEqual(await place.webhooks(), []);
	assert.equal(place.read().replaceAll(/ {4}(repos|namespaces): \[\]\n/g, ""), place.text);
	assert.ok(lstatSync(link).isSymbolicLink());

	assert.equal((await command(["add", "../etc"])).code, 2);
	assert.equal((await command(["forget", "owner"])).code, 2);
	assert.equal((await command(["add"])).code, 2);
});

test("a name that the Hub does not have, and whatever the Hub refuses, ends in a sentence with nothing changed", async (t: TestContext) => {
	const place = await setting(t, { organizations: [{ name: "closed", refusesWebhooks: true }] });
	const { hub, command } = place;
	const refused = async (args: readonly string[], expected: RegExp, token = BOT): Promise<void> => {
		const { code, json, stderr } = await command(args, token);
		assert.equal(code, 1, `${args.join(" ")}: ${JSON.stringify(json)}`);
		assert.match(stderr, expected);
		assert.match(stderr, /Nothing was changed\.\n$/);
		assert.doesNotMatch(stderr, /\n\s+at /);
		assert.equal(place.read(), place.text);
		assert.deepEqual(await place.webhooks(), []);
	};
	await refused(
		["add", "owner", "nobody", "owner/nothing"],
		/no user or organisation "nobody"\.\nThe Hub shows no model "owner\/nothing"/,
	);
	await createRepo(hub, "owner/secret", OWNER, { private: true });
	await refused(["add", "owner/secret"], /a private one needs a YAQA_BOT_READ_TOKEN/);
	await createRepo(hub, "owner/old");
	const move = { fromRepo: "owner/old", toRepo: "owner/new", type: "model" };
	assert.equal((await call(`${hub.url}/api/repos/move`, { token: OWNER, body: move })).status, 200);
	await refused(["add", "owner/old"], /"owner\/old" is called "owner\/new" now: watch that\./);
	await refused(["add", "owner"], /right to manage webhooks/, SCOPED);
	await refused(["add", "owner"], /right to manage webhooks/, READER);
	await refused(["add", "closed"], /does not allow webhooks/);
	hub.faults.set({ routes: [{ path: "overview", kind: "disconnect", times: 20 }] });
	await refused(["add", "owner"], /The Hub cannot be asked about "owner"/);
	hub.faults.clear();
});

test("one entry that the Hub refuses does not spoil the registration of the others", async (t: TestContext) => {
	const place = await setting(t, {
		users: [...users, ...["a", "b", "c", "d"].map((name) => ({ name: `user-${name}`, token: `hf_user_${name}` }))],
		organizations: [{ name: "closed", refusesWebhooks: true }],
	});
	const names =
		"namespaces: [user-a, gone, user-b, closed, user-c]\n    repos: [stranger/model, closed/model, user-d/later]";
	writeFileSync(place.path, place.text.replace("    recipes", `    ${names}\n    recipes`));
	const { code, json, stderr } = await place.command(["add", "user-d"]);
	assert.equal(code, 0, stderr);
	assert.deepEqual(
		(json["leftOut"] as { name: string }[]).map(({ name }) => name),
		["gone", "closed", "closed/model"],
	);
	assert.match(JSON.stringify(json["leftOut"]), /no user or organisation of that name.*does not allow webhooks/);
	assert.deepEqual(await place.watched(), ["stranger/model", "user-a", "user-b", "user-c", "user-d", "user-d/later"]);
});
