import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { uploadFiles } from "@huggingface/hub";
import { downloadRepoFiles } from "../../src/hub/download-repo-files.ts";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { listRepoFiles } from "../../src/hub/list-repo-files.ts";
import { call, createRepo, OWNER, STRANGER, temporaryFolder, testHub } from "../support/local-hub-fixture.ts";

test("the bot fetches large files from another host without its token, and gets the same bytes", async (context) => {
	const hub = await testHub(context, { cdn: true });
	await createRepo(hub, "owner/hidden", OWNER, { private: true });
	const access = { hubUrl: hub.url, accessToken: OWNER };
	const weights = randomBytes(300_000);
	await uploadFiles({
		...access,
		repo: "owner/hidden",
		files: [
			{ path: "model.bin", content: new Blob([weights]) },
			{ path: "config.json", content: new Blob(["{}"]) },
		],
	});
	const asked: { readonly host: string; readonly path: string; readonly token: boolean }[] = [];
	const recording: typeof fetch = async (input, init) => {
		const { hostname: host, pathname: path } = new URL(String(input));
		asked.push({ host, path, token: new Headers(init?.headers).has("authorization") });
		return await fetch(input, init);
	};
	const bot = { ...access, fetch: createHubFetch({ hubUrl: hub.url, fetch: recording }) };
	const files = await listRepoFiles({ ...bot, repo: "owner/hidden", revision: "main" });
	const directory = await temporaryFolder(context);
	await downloadRepoFiles({ ...bot, repo: "owner/hidden", revision: "main", files, directory });
	assert.deepEqual(await readFile(join(directory, "model.bin")), weights);
	const elsewhere = asked.filter(({ path }) => path.startsWith("/__cdn/"));
	assert.ok(elsewhere.length > 0);
	assert.ok(
		elsewhere.every(({ host, token }) => host === "localhost" && !token),
		JSON.stringify(elsewhere),
	);
	assert.ok(asked.some(({ path, token }) => path.endsWith("/resolve/main/config.json") && token));
});

test("the other host refuses tokens, addresses that were changed, and does not know repos", async (context) => {
	const hub = await testHub(context, { cdn: true });
	await createRepo(hub, "owner/model");
	const content = Buffer.from([0, 1, 2, 3]);
	const access = { hubUrl: hub.url, accessToken: OWNER };
	await uploadFiles({ ...access, repo: "owner/model", files: [{ path: "a.bin", content: new Blob([content]) }] });
	const redirect = await call(`${hub.url}/owner/model/resolve/main/a.bin`);
	assert.equal(redirect.status, 302);
	const oid = createHash("sha256").update(content).digest("hex");
	assert.equal(redirect.headers.get("x-linked-etag"), `"${oid}"`);
	const address = redirect.headers.get("location") ?? "";
	assert.equal((await call(address)).status, 200);
	assert.equal((await call(address, { token: STRANGER })).status, 400);
	assert.equal((await call(address.replace(oid, "0".repeat(64)))).status, 403);
	assert.equal((await call(`${address}x`)).status, 403);
	const part = await call(address, { headers: { Range: "bytes=1-2" } });
	assert.deepEqual([part.status, part.headers.get("content-range")], [206, "bytes 1-2/4"]);
});

test("a name of one word leads to the name with an owner, with the method and the query that it came with", async (context) => {
	const hub = await testHub(context, { legacyNames: { first: "owner/first-of-all" } });
	await createRepo(hub, "owner/first-of-all");
	for (const [path, to] of [
		["/api/models/first?expand=sha", "/api/models/owner/first-of-all?expand=sha"],
		["/first/resolve/main/.gitattributes", "/owner/first-of-all/resolve/main/.gitattributes"],
		["/api/models/first/tree/main", "/api/models/owner/first-of-all/tree/main"],
	] as const) {
		const answer = await call(`${hub.url}${path}`);
		assert.deepEqual([answer.status, answer.headers.get("location")], [307, to]);
	}
	assert.equal((await call(`${hub.url}/api/models/second`)).status, 404);
});
