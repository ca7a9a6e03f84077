import assert from "node:assert/strict";
import { test } from "node:test";
import { runLocalHub } from "../../src/local-hub/run-local-hub.ts";
import { createLog, silentLog } from "../../src/log.ts";
import {
	call,
	commit,
	createRepo,
	file,
	OWNER,
	STRANGER,
	temporaryFolder,
	testHub,
} from "../support/local-hub-fixture.ts";

const EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">[go](javascript:alert(3))';

test("a repo's page shows its card, files and model tree, and runs nothing from them", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/base");
	await createRepo(hub, "lab/child");
	await commit(hub, "lab/child", [
		file(
			"README.md",
			`---\nbase_model: lab/base\nbase_model_relation: quantized\ntags: ["<b>bold</b>"]\n---\n# The child\n${EVIL}\n\n![plot](plot.png) [file](notes.txt)\n`,
		),
		file("<img src=x>.txt", "x"),
		file("notes.txt", "<script>alert(4)</script>"),
	]);
	const page = await call(`${hub.url}/lab/child`);
	assert.equal(page.status, 200);
	assert.match(page.headers.get("content-security-policy") ?? "", /default-src 'none'/);
	assert.match(page.text, /<h1[^>]*>The child<\/h1>/);
	assert.match(page.text, /src="\/lab\/child\/resolve\/main\/plot\.png"/);
	assert.match(page.text, /href="\/lab\/child\/blob\/main\/notes\.txt"/);
	assert.match(page.text, /quantized from <a href="\/lab\/base">/);
	for (const path of ["lab/child", "lab/child/tree/main", "lab/child/blob/main/notes.txt", "lab/child/commits/main"]) {
		const { text, status } = await call(`${hub.url}/${path}`);
		assert.equal(status, 200, path);
		assert.doesNotMatch(text, /<script|<img src=x|<b>bold|href="javascript/i, path);
	}
	const base = await call(`${hub.url}/lab/base`);
	assert.match(base.text, /<a href="\/lab\/child">lab\/child<\/a> <span class="muted">quantized/);
	const home = await call(`${hub.url}/`);
	assert.match(home.text, /href="\/lab\/child"/);
	assert.equal((await call(`${hub.url}/lab`)).status, 200);
	const absent = await call(`${hub.url}/lab/none`, { headers: { Accept: "text/html" } });
	assert.equal(absent.status, 404);
	assert.match(absent.text, /<h1>404<\/h1>/);
});

test("a page leaves comments of the source out and folds sections, with nothing else of raw HTML", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const base = `${hub.url}/api/models/lab/model/discussions`;
	const folded = "<details>\n<summary>More</summary>\n\n| a |\n|---|\n| 1 |\n\n</details>";
	const description = `Before <!-- one\ntwo --> after\n\n<!-- {"trailer":1} -->\n\n${folded}\n\n<details open onclick="x">`;
	await call(base, { token: STRANGER, body: { title: "Title", description } });

	const page = await call(`${hub.url}/lab/model/discussions/1`);

	assert.doesNotMatch(page.text, /trailer|one\s+two/);
	assert.match(page.text, /<details>\s*<summary>More<\/summary>\s*<table>[\s\S]*<\/table>\s*<\/details>/);
	assert.doesNotMatch(page.text, /<details open/);
});

test("a discussion's page shows comments as safe Markdown and every event", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const base = `${hub.url}/api/models/lab/model/discussions`;
	await call(base, { token: STRANGER, body: { title: "<i>Title</i>", description: `**Please** ${EVIL}` } });
	await call(`${base}/1/comment`, { token: OWNER, body: { comment: "| a | b |\n|---|---|\n| 1 | 2 |" } });
	await call(`${base}/1/title`, { token: OWNER, body: { title: "<u>New</u>" } });
	await call(`${base}/1/status`, { token: OWNER, body: { status: "closed" } });
	const page = await call(`${hub.url}/lab/model/discussions/1`);
	assert.match(page.text, /<strong>Please<\/strong>/);
	assert.match(page.text, /<table>[\s\S]*<td>1<\/td>/);
	assert.match(page.text, /set this to closed/);
	assert.doesNotMatch(page.text, /<script|<img|<i>Title|<u>New|href="javascript/i);
	const list = await call(`${hub.url}/lab/model/discussions`);
	assert.match(list.text, /href="\/lab\/model\/discussions\/1"/);
	assert.doesNotMatch(list.text, /<u>New/);
});

test("the command starts a Hub with three people, says how to use it, and ends on its signal", async (context) => {
	const lines: string[] = [];
	const end = new AbortController();
	await runLocalHub({
		dataDirectory: await temporaryFolder(context),
		port: 0,
		log: silentLog,
		print: (line) => lines.push(line),
		signal: end.signal,
		onStarted: async (hub) => {
			const me = await call(`${hub.url}/api/whoami-v2`, { token: "hf_demo_yaqa_bot" });
			assert.equal(me.status, 200);
			end.abort();
		},
	});
	const text = lines.join("\n");
	for (const word of ["Local Hub at http://127.0.0.1:", "demo", "yaqa-bot", "visitor", "HF_ENDPOINT="])
		assert.ok(text.includes(word), word);
});

test("neither tokens nor secrets get into the log", async (context) => {
	const lines: string[] = [];
	const log = createLog({ level: "debug", write: (line) => lines.push(line), now: () => new Date() });
	const hub = await testHub(context, { log, webhookTimeoutMilliseconds: 50 });
	await createRepo(hub, "lab/model");
	await call(`${hub.url}/api/settings/webhooks`, {
		token: OWNER,
		body: { url: "http://127.0.0.1:9/x", watched: [{ type: "org", name: "lab" }], secret: "very-secret" },
	});
	await commit(hub, "lab/model", [file("a", "a")]);
	await call(`${hub.url}/api/whoami-v2`, { token: "hf_not_a_known_token" });
	await hub.webhooksIdle();
	const text = lines.join("\n");
	assert.ok(lines.length >= 4);
	for (const secret of [OWNER, "very-secret", "hf_not_a_known_token", hub.adminToken])
		assert.ok(!text.includes(secret));
});
