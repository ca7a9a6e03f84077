import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import Ajv2020 from "ajv/dist/2020.js";
import { parse } from "yaml";
import { CONFIG_DIRECTORY, generatedFiles } from "../../scripts/write-schemas.ts";
import { type LoadedConfiguration, loadConfiguration } from "../../src/config/load.ts";
import { runnerEnvironment } from "../../src/config/runner-environment.ts";

const folder = mkdtempSync(join(tmpdir(), "yaqa-config-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function load(yaml: string, env: Record<string, string> = {}): LoadedConfiguration {
	const path = join(folder, "yaqa-bot.yaml");
	writeFileSync(path, yaml);
	return loadConfiguration({ path, env });
}

function problems(loaded: LoadedConfiguration) {
	assert.ok(!loaded.ok);
	return loaded.problems;
}

test("the documented file holds exactly the defaults", () => {
	const documented = loadConfiguration({ path: join(CONFIG_DIRECTORY, "yaqa-bot.yaml"), env: {} });
	const bare = load("");
	assert.ok(documented.ok && bare.ok);
	assert.deepEqual(documented.configuration, bare.configuration);
	const written: unknown = parse(readFileSync(join(CONFIG_DIRECTORY, "yaqa-bot.yaml"), "utf8"));
	const { database, ...rest } = bare.configuration;
	assert.deepEqual(written, { ...rest, database: { ...database, dataDirectory: "data" } });
});

test("an unknown setting is named with the one that was meant", () => {
	assert.deepEqual(problems(load("watch:\n  namespace: [acme]\nrunnner: {}\n")), [
		{
			where: "watch.namespace",
			message: 'There is no setting "namespace" in "watch".',
			suggestion: "namespaces",
		},
		{ where: "runnner", message: 'There is no setting "runnner" here.', suggestion: "runner" },
	]);
});

test("wrong values, unknown recipes and missing files are told by their place", () => {
	const found = problems(load("watch:\n  recipes: [gguf:q4_9]\nquantization:\n  calibration: {kind: text}\n"));
	assert.deepEqual(
		found.map((problem) => [problem.where, problem.suggestion]),
		[
			["watch.recipes.0", "gguf:q4_0"],
			["quantization.calibration.files", null],
		],
	);
	const [missing] = problems(load("quantization: {evaluation: {report: [{domain: prose, path: nowhere.txt}]}}"));
	assert.equal(missing?.where, "quantization.evaluation.report.0.path");
	const [port] = problems(load("server: {port: 99999}"));
	assert.equal(port?.where, "server.port");
});

test("broken YAML is told by line", () => {
	const [problem] = problems(load("server:\n  port: [1\n"));
	assert.match(problem?.message ?? "", /^Line \d+, column \d+: /);
	assert.equal(problems(load("- just\n- a list\n")).length, 1);
});

test("the environment stands above the file, overrides above both", () => {
	const path = join(folder, "yaqa-bot.yaml");
	writeFileSync(path, "server: {port: 1}\nhub: {url: 'https://file.example/'}\n");
	const loaded = loadConfiguration({
		path,
		env: { PORT: "2", HF_ENDPOINT: "http://127.0.0.1:9/", DATABASE_URL: "postgres://u:p@h/d" },
		overrides: { server: { port: 3 } },
	});
	assert.ok(loaded.ok);
	assert.equal(loaded.configuration.server.port, 3);
	assert.equal(loaded.configuration.hub.url, "http://127.0.0.1:9");
	assert.equal(loaded.configuration.database.kind, "postgres");
});

test("secrets stay out of the printable configuration and out of problems", () => {
	const env = {
		HF_TOKEN: "hf_publishpublish",
		YAQA_BOT_READ_TOKEN: "hf_readreadread",
		YAQA_BOT_WEBHOOK_SECRET: "webhooksecret1",
		DATABASE_URL: "postgres://user:password1@host/db",
	};
	const loaded = load("", env);
	assert.ok(loaded.ok);
	assert.equal(loaded.secrets.publisherToken, "hf_publishpublish");
	const printed = JSON.stringify(loaded.configuration);
	for (const secret of Object.values(env)) assert.ok(!printed.includes(secret));
	const bad = problems(load("", { YAQA_BOT_WEBHOOK_SECRET: "kurz" }));
	assert.equal(bad[0]?.where, "YAQA_BOT_WEBHOOK_SECRET");
	assert.ok(!JSON.stringify(bad).includes("kurz"));
});

test("a run is given paths and devices, never a token", () => {
	const given = runnerEnvironment({ PATH: "/bin", HF_TOKEN: "hf_x", DATABASE_URL: "y", AWS_SECRET: "z", LANG: "C" });
	assert.deepEqual(given, { PATH: "/bin", LANG: "C" });
});

for (const [name, content] of generatedFiles()) {
	test(`config/${name} is what scripts/write-schemas.ts writes`, () => {
		assert.deepEqual(JSON.parse(readFileSync(join(CONFIG_DIRECTORY, name), "utf8")), JSON.parse(content));
	});
}

test("the configuration's JSON Schema accepts the documented file and refuses unknown settings", () => {
	const schema: object = JSON.parse(readFileSync(join(CONFIG_DIRECTORY, "yaqa-bot.schema.json"), "utf8"));
	const validate = new Ajv2020.default({ strict: false, validateFormats: false }).compile(schema);
	const documented: unknown = parse(readFileSync(join(CONFIG_DIRECTORY, "yaqa-bot.yaml"), "utf8"));
	assert.ok(validate(documented), JSON.stringify(validate.errors));
	assert.equal(validate({ servers: {} }), false);
});

test("a runner elsewhere needs a staging namespace and tokens of its own", () => {
	assert.deepEqual(
		problems(load("runner: {kind: hf-jobs}\n")).map((problem) => problem.where),
		[
			"runner.stagingNamespace",
			"YAQA_BOT_STAGING_TOKEN",
			"runner.hfJobs.namespace",
			"runner.hfJobs.image",
			"YAQA_BOT_JOBS_TOKEN",
		],
	);
	const gitHub =
		"hub: {namespace: acme}\nrunner: {kind: github-actions, stagingNamespace: acme, githubActions: {repository: acme/gpu, appId: '1'}}\n";
	assert.deepEqual(
		problems(
			load(gitHub, {
				YAQA_BOT_HUB_TOKEN: "hf_one",
				YAQA_BOT_STAGING_TOKEN: "hf_one",
				YAQA_BOT_GITHUB_APP_KEY: "-----BEGIN PRIVATE KEY-----\\nMII\\n-----END PRIVATE KEY-----",
			}),
		).map((problem) => problem.where),
		["runner.stagingNamespace", "YAQA_BOT_STAGING_TOKEN"],
	);
	const [key] = problems(load("", { YAQA_BOT_GITHUB_APP_KEY: "secretsecret" }));
	assert.equal(key?.where, "YAQA_BOT_GITHUB_APP_KEY");
	assert.ok(!JSON.stringify(key).includes("secretsecret"));
});

test("signing in needs the app's secret and the address that people come back to", () => {
	assert.deepEqual(
		problems(load("signIn: {clientId: app}\n")).map((problem) => problem.where),
		["server.publicUrl", "YAQA_BOT_OAUTH_CLIENT_SECRET"],
	);
	const space = {
		OAUTH_CLIENT_ID: "of-the-space",
		OAUTH_CLIENT_SECRET: "a secret of the Space".replaceAll(" ", "-"),
		YAQA_BOT_PUBLIC_URL: "https://bot.example",
	};
	const loaded = load("", space);
	assert.ok(loaded.ok);
	assert.equal(loaded.configuration.signIn.clientId, "of-the-space");
	assert.equal(loaded.secrets.oauthClientSecret, space.OAUTH_CLIENT_SECRET);
	const [short] = problems(load("", { YAQA_BOT_OAUTH_CLIENT_SECRET: "short" }));
	assert.equal(short?.where, "YAQA_BOT_OAUTH_CLIENT_SECRET");
});
