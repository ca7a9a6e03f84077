import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { checkIssues } from "../../src/cli/check-issues.ts";
import { loadConfiguration } from "../../src/config/load.ts";
import { startFakeGitHub } from "../fake-github/fake-github.ts";

test("doctor tells which GitHub repos' issues the App reads, and what helps where it does not", async (t: TestContext) => {
	const folder = mkdtempSync(join(tmpdir(), "yaqa-issues-"));
	const github = await startFakeGitHub({
		folder,
		workflowPath: fileURLToPath(new URL("../../workflows/quantize.yml", import.meta.url)),
		path: "",
		variables: {},
		secrets: {},
	});
	t.after(async () => {
		await github.close();
		rmSync(folder, { recursive: true, force: true });
	});
	const settings = {
		apiUrl: github.url,
		appId: github.appId,
		repositories: [{ repository: github.issues.repository }, { repository: "acme/not-installed" }],
	};
	const load = (env: Readonly<Record<string, string>>) =>
		loadConfiguration({ env, overrides: { requests: { github: settings } } });

	const without = load({});
	assert.ok(!without.ok);
	assert.deepEqual(
		without.problems.map((problem) => problem.where),
		["YAQA_BOT_GITHUB_APP_KEY"],
	);
	const loaded = load({ YAQA_BOT_GITHUB_APP_KEY: github.privateKey });
	assert.ok(loaded.ok);
	const findings = await checkIssues(loaded.configuration, loaded.secrets);
	assert.deepEqual(
		findings.map(({ name, state }) => [name, state]),
		[
			["Issues of acme/models", "fine"],
			["Issues of acme/not-installed", "lacking"],
		],
	);
	assert.match(findings[1]?.remedy ?? "", /Install the GitHub App 4711/);
	assert.ok(!JSON.stringify(findings).includes("PRIVATE KEY"));
});
