import assert from "node:assert/strict";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { commentsOf } from "../../src/hub/discussion.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import {
	call,
	commit,
	createRepo,
	file,
	OWNER,
	root,
	STRANGER,
	temporaryFolder,
	testHub,
} from "../support/local-hub-fixture.ts";
import { runBot } from "../support/run-bot.ts";
import { push, until } from "../support/scripted-bot.ts";

const BOT = "hf_quant_bot_token";
const SECRET = "long-enough-for-it";

async function setting(context: TestContext) {
	const folder = await temporaryFolder(context);
	const programs = join(folder, "bin");
	await mkdir(programs);
	await writeFile(
		join(programs, "yaqa-bot"),
		`#!/bin/sh\nexec ${process.execPath} ${join(root, "bin", "yaqa-bot.mjs")} "$@"\n`,
	);
	await chmod(join(programs, "yaqa-bot"), 0o755);
	const hub = await testHub(context, {
		users: [
			{ name: "owner", token: OWNER, orgs: [{ name: "lab", role: "admin" }] },
			{ name: "quant-bot", token: BOT },
			{ name: "stranger", token: STRANGER },
		],
		jobs: { programFolders: [programs] },
	});
	const path = join(folder, "bot.yaml");
	const hubSettings = `{url: "${hub.url}", namespace: quant-bot, botUser: quant-bot, mention: quant-bot}`;
	await writeFile(
		path,
		`hub: ${hubSettings}\ndatabase: {dataDirectory: "${join(folder, "data")}"}\nwatch: {namespaces: [lab], recipes: ["gguf:q4_0"]}\n`,
	);
	return { hub, path };
}

test("a comment starts a job on the Hub that answers it and ends: the bot without a server", async (context) => {
	const { hub, path } = await setting(context);
	await createRepo(hub, "lab/model");
	const made = await call(`${hub.url}/api/settings/webhooks`, {
		token: BOT,
		body: {
			job: {
				dockerImage: "registry.example/yaqa-bot:1",
				command: ["yaqa-bot", "on-webhook", "--config", path, "--json"],
				secrets: { YAQA_BOT_HUB_TOKEN: BOT, YAQA_BOT_WEBHOOK_SECRET: SECRET },
				flavor: "cpu-basic",
			},
			watched: [{ type: "model", name: "lab/model" }],
			domains: ["discussion"],
			secret: SECRET,
		},
	});
	assert.equal(made.status, 200, made.text);
	assert.doesNotMatch(made.text, new RegExp(`${BOT}|${SECRET}`));
	const opened = await call(`${hub.url}/api/models/lab/model/discussions`, {
		token: OWNER,
		body: { title: "What can it do?", description: "@quant-bot help" },
	});
	assert.equal(opened.status, 200, opened.text);
	const jobs = async () =>
		(await call(`${hub.url}/api/jobs/quant-bot`, { token: BOT })).json as {
			id: string;
			status: { stage: string };
			initiator: { type: string };
		}[];
	const ended = await until(
		"both events to be worked on",
		async () => {
			const all = await jobs();
			// The answer is an event too: its job sees the bot's own comment and ends.
			return all.length >= 2 && all.every(({ status }) => status.stage !== "RUNNING" && status.stage !== "SCHEDULING")
				? all
				: null;
		},
		420,
	);
	for (const job of ended) {
		const { text } = await call(`${hub.url}/api/jobs/quant-bot/${job.id}/logs`, { token: BOT });
		assert.equal(job.status.stage, "COMPLETED", text);
		assert.equal(job.initiator.type, "webhook");
		assert.doesNotMatch(text, new RegExp(`${BOT}|${SECRET}`));
	}
	const { hubUrl, accessToken } = { hubUrl: hub.url, accessToken: OWNER };
	const read = await getDiscussion({ hubUrl, accessToken, repo: "lab/model", num: 1 });
	const answers = commentsOf(read).filter(({ author }) => author?.name === "quant-bot");
	assert.equal(answers.length, 1);
	assert.match(answers[0]?.data.latest.raw ?? "", /quant-bot/);
});

test("without an event nothing is done, and with another secret nothing either, in words", async (context) => {
	const { path } = await setting(context);
	const env = { YAQA_BOT_HUB_TOKEN: BOT, YAQA_BOT_WEBHOOK_SECRET: SECRET };
	const args = ["on-webhook", "--config", path, "--json"];
	const idle = await runBot(args, env);
	assert.equal(idle.code, 0, idle.err);
	assert.match(idle.err, /No webhook started this.*Give this job's id to a webhook/);
	const forged = await runBot(args, { ...env, WEBHOOK_PAYLOAD: "{}", WEBHOOK_SECRET: "another-one" });
	assert.equal(forged.code, 1);
	assert.match(forged.err, /another secret than YAQA_BOT_WEBHOOK_SECRET: nothing was done/);
	assert.deepEqual(JSON.parse(forged.out).ok, false);
});

test("an earlier event's failed job is not this event's, where the database is kept", async (context) => {
	const { hub, path } = await setting(context);
	await createRepo(hub, "lab/empty");
	const pushed = await commit(hub, "lab/empty", [file("README.md", "No weights: a push of it ends in a failed job.")]);
	assert.equal(pushed.status, 200, pushed.text);
	const on = (event: string, repo: string) =>
		runBot(["on-webhook", "--config", path, "--json"], {
			YAQA_BOT_HUB_TOKEN: BOT,
			WEBHOOK_ID: event,
			WEBHOOK_PAYLOAD: JSON.stringify(push(repo)),
		});
	const first = await on("one", "lab/empty");
	assert.equal(first.code, 1, first.err);
	const { report } = JSON.parse(first.out) as { report: { jobs: { sourceRepo: string; state: string }[] } };
	assert.deepEqual(
		report.jobs.map(({ sourceRepo, state }) => ({ sourceRepo, state })),
		[{ sourceRepo: "lab/empty", state: "failed" }],
	);
	const second = await on("two", "owner/unwatched");
	assert.equal(second.code, 0, second.err);
	assert.deepEqual((JSON.parse(second.out) as { report: { jobs: unknown[] } }).report.jobs, []);
});
