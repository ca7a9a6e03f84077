import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { runCommand } from "../../src/cli/run-command.ts";
import { createAccounts } from "../../src/local-hub/accounts.ts";
import { FAULT_FORMS, faultPlan } from "../../src/local-hub/fault-flag.ts";
import { readUsersFile } from "../../src/local-hub/users-file.ts";
import { call, temporaryFolder, testHub } from "../support/local-hub-fixture.ts";
import { recordingTerminal } from "../support/recording-terminal.ts";

test("faults are read from flags, and what is none is told with the forms there are", () => {
	assert.deepEqual(faultPlan(["dropWebhooks=2", "uploadBytesPerSecond=1500000"]), {
		dropWebhooks: 2,
		uploadBytesPerSecond: 1_500_000,
	});
	const routes = faultPlan(["503 POST /api/repos/create 2", "slow=20 /resolve/", "disconnect GET /api/models"]).routes;
	assert.deepEqual(
		routes?.map(({ kind, method, path, times, status, delayMilliseconds }) =>
			[kind, method, path, times, status, delayMilliseconds].join(" "),
		),
		["status POST /api/repos/create 2 503 0", "slow  /resolve/ 1 503 20000", "disconnect GET /api/models 1 503 0"],
	);
	for (const wrong of [
		"",
		"dropWebhooks",
		"dropWebhooks=-1",
		"200 /x",
		"503",
		"503 GET /a 1 2",
		"slow=x /a",
		"503 [",
	]) {
		assert.throws(() => faultPlan([wrong]), /is no fault|regular expression/, wrong);
	}
	for (const form of FAULT_FORMS.filter((one) => one.includes(":"))) {
		assert.ok(faultPlan([form.slice(form.lastIndexOf(": ") + 2)]).routes, form);
	}
});

test("a users file is read whole or refused with the place that is wrong", async (t: TestContext) => {
	const path = join(await temporaryFolder(t), "people.yaml");
	writeFileSync(
		path,
		`users:
  - {name: ann, token: hf_ann_token, orgs: [{name: lab, role: admin}]}
  - name: bot
    token: hf_bot_token
    moreTokens:
      - {token: hf_bot_fine, role: fineGrained, writeNamespaces: [lab], permissions: [repo.write], webhooks: true}
organizations:
  - {name: lab, fullname: The Lab, refusesWebhooks: true}
`,
	);
	const { users, organizations } = readUsersFile(path);
	const accounts = createAccounts(users, organizations);
	assert.equal(accounts.organization("lab")?.fullname, "The Lab");
	assert.equal(accounts.authenticate("Bearer hf_bot_fine")?.token.webhooks, true);
	for (const [text, expected] of [
		["users: []", /at users: /],
		["users: [{name: a, token: secret}]", /at users\.0\.token: a token starts with hf_/],
		["users: [{name: a, token: hf_aaaa, role: boss}]", /at users\.0\.role/],
		["users: [{name: a, token: hf_aaaa, colour: red}]", /at users\.0: .*colour/],
		["users: [", /people\.yaml: /],
	] as const) {
		writeFileSync(path, text);
		assert.throws(() => readUsersFile(path), expected);
	}
	const terminal = recordingTerminal();
	assert.equal(await runCommand(["local-hub", "--users", path, "--port", "0"], terminal), 2);
	assert.match(terminal.said().err, /people\.yaml/);
	assert.equal(await runCommand(["local-hub", "--fault", "rain", "--port", "0"], recordingTerminal()), 2);
	assert.equal(await runCommand(["local-hub", "--jobs", "/nowhere", "--port", "0"], recordingTerminal()), 2);
});

test("a page explains who is there, how clients come in and what is armed, and shows no token", async (t: TestContext) => {
	const hub = await testHub(t, { initialFaults: { dropWebhooks: 3 } });
	const page = await call(`${hub.url}/__local-hub`, { headers: { accept: "text/html" } });
	assert.equal(page.status, 200);
	assert.match(page.text, /HF_ENDPOINT=http/);
	assert.match(page.text, /write in lab/);
	assert.match(page.text, /dropWebhooks&quot;: 3/);
	assert.match(page.text, /runs no jobs/);
	assert.doesNotMatch(page.text, /hf_(owner|bot)/);
	assert.match((await call(`${hub.url}/`, { headers: { accept: "text/html" } })).text, /href="\/__local-hub"/);
});
