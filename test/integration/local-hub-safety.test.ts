import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { request } from "node:http";
import { test } from "node:test";
import { compress } from "lz4js";
import { requestedRange } from "../../src/local-hub/routes/resolve-routes.ts";
import type { LocalHub } from "../../src/local-hub/start-local-hub.ts";
import { parseShard, xetHash } from "../../src/local-hub/xet-shard.ts";
import { decodeChunk, ungroupBytes } from "../../src/local-hub/xet-xorb.ts";
import {
	at,
	call,
	commit,
	createRepo,
	file,
	OWNER,
	READER,
	SCOPED,
	STRANGER,
	testHub,
	textAt,
} from "../support/local-hub-fixture.ts";

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

async function lfsAction(hub: LocalHub, repo: string, oid: string, size: number, token = OWNER): Promise<unknown> {
	const batch = await call(`${hub.url}/${repo}.git/info/lfs/objects/batch`, {
		token,
		body: { operation: "upload", transfers: ["basic"], hash_algo: "sha256", objects: [{ oid, size }] },
		headers: { "Content-Type": "application/vnd.git-lfs+json" },
	});
	assert.equal(batch.status, 200, batch.text);
	return at(batch.json, "objects.0");
}

test("paths that lead out of a repo are refused and nothing is committed", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const head = textAt((await call(`${hub.url}/api/models/lab/model`)).json, "sha");
	for (const path of [
		"../up",
		"/etc/passwd",
		"a/../../b",
		"a//b",
		".git/config",
		"a\\b",
		"a\u0000b",
		"",
		".",
		"x/",
		"é".repeat(200),
	]) {
		const answer = await commit(hub, "lab/model", [file("good.txt", "good"), file(path, "bad")]);
		assert.equal(answer.status, 400, JSON.stringify(path));
	}
	for (const lines of [
		[file("a", "1"), file("a/b", "2")],
		[{ key: "deletedFile", value: { path: "never" } }],
		[{ key: "lfsFile", value: { path: "x.bin", oid: "f".repeat(64), algo: "sha256" } }],
		[{ key: "lfsFile", value: { path: "x.bin", oid: "../../x", algo: "sha256" } }],
		[{ key: "nonsense", value: {} }],
	])
		assert.equal((await commit(hub, "lab/model", lines)).status, 400, JSON.stringify(lines));
	const url = `${hub.url}/api/models/lab/model/commit/main`;
	const ndjson = { "Content-Type": "application/x-ndjson" };
	assert.equal((await call(url, { token: OWNER, body: "{not json", headers: ndjson })).status, 400);
	assert.equal((await call(url, { token: OWNER, body: "", headers: ndjson, method: "POST" })).status, 400);
	const large = JSON.stringify(file("large.txt", "x".repeat(15_000_000)));
	assert.equal((await call(url, { token: OWNER, body: large, headers: ndjson })).status, 413);
	assert.equal(textAt((await call(`${hub.url}/api/models/lab/model`)).json, "sha"), head);
	for (const path of ["..%2f..%2finstance.json", "%2e%2e/instance.json", "....//instance.json"])
		assert.equal((await call(`${hub.url}/lab/model/resolve/main/${path}`)).status, 404, path);
	for (const name of ["../x", "a b", "x.git", ".hidden", "a".repeat(120), "api/x"])
		assert.equal(
			(await call(`${hub.url}/api/repos/create`, { token: OWNER, body: { name, organization: "lab" } })).status,
			400,
			name,
		);
});

test("an LFS object must hash to its name, have its size, and come through the repo that uses it", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/secret", OWNER, { private: true });
	await createRepo(hub, "stranger/mine", STRANGER);
	const content = Buffer.from("the secret weights");
	const oid = sha256(content);
	const action = await lfsAction(hub, "lab/secret", oid, content.byteLength);
	const href = textAt(action, "actions.upload.href");
	const put = async (url: string, body: Buffer): Promise<number> =>
		(await fetch(url, { method: "PUT", body: new Uint8Array(body) })).status;
	assert.equal(await put(href, Buffer.from("other weights here")), 400);
	assert.equal(await put(href, Buffer.concat([content, content])), 413);
	assert.equal(await put(`${href}x`, content), 403);
	assert.equal(await put(href, content), 200);
	const use = [{ key: "lfsFile", value: { path: "w.bin", oid, algo: "sha256" } }];
	assert.equal((await commit(hub, "lab/secret", use)).status, 200);
	assert.equal(
		((await lfsAction(hub, "lab/secret", oid, content.byteLength)) as { actions?: unknown }).actions,
		undefined,
	);
	// knowing the hash is not having the file
	assert.equal((await commit(hub, "stranger/mine", use, { token: STRANGER })).status, 400);
	assert.notEqual(at(await lfsAction(hub, "stranger/mine", oid, content.byteLength, STRANGER), "actions"), undefined);
});

test("a private repo does not exist for those who may not see it", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/secret", OWNER, { private: true });
	await commit(hub, "lab/secret", [file("a.txt", "hush")]);
	for (const path of [
		"api/models/lab/secret",
		"api/models/lab/secret/revision/main",
		"api/models/lab/secret/tree/main",
		"api/models/lab/secret/commits/main",
		"api/models/lab/secret/refs",
		"api/models/lab/secret/discussions",
		"lab/secret/resolve/main/a.txt",
		"lab/secret/raw/main/a.txt",
		"api/models/lab/secret/xet-write-token/main",
	]) {
		const nobody = await call(`${hub.url}/${path}`);
		assert.equal(nobody.status, 401, path);
		assert.equal(nobody.headers.get("x-error-code"), "RepoNotFound", path);
		const stranger = await call(`${hub.url}/${path}`, { token: STRANGER });
		assert.equal(stranger.status, 404, path);
		assert.equal(stranger.headers.get("x-error-code"), "RepoNotFound", path);
		assert.equal(
			(await call(`${hub.url}/${path}`, { token: READER })).status,
			path.includes("xet-write") ? 403 : 200,
			path,
		);
	}
	for (const path of ["lab/secret", "lab/secret/tree/main", "lab/secret/discussions", "lab/secret/blob/main/a.txt"])
		assert.equal((await call(`${hub.url}/${path}`)).status, 404, path);
	assert.ok(!(await call(`${hub.url}/`)).text.includes("secret"));
	const search = async (token: string | null): Promise<unknown> =>
		(await call(`${hub.url}/api/models`, { token })).json;
	assert.deepEqual(await search(STRANGER), []);
	assert.equal(at(await search(OWNER), "0.id"), "lab/secret");
});

test("each token does what its role allows and no more", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	await createRepo(hub, "owner/own");
	const push = async (name: string, token: string): Promise<number> =>
		(await commit(hub, name, [file(token, token)], { token })).status;
	assert.equal(await push("lab/model", READER), 403);
	assert.equal(await push("lab/model", STRANGER), 403);
	assert.equal(await push("lab/model", SCOPED), 200);
	assert.equal(await push("owner/own", SCOPED), 403);
	const create = async (token: string, organization: string): Promise<number> =>
		(await call(`${hub.url}/api/repos/create`, { token, body: { name: "new", organization } })).status;
	assert.equal(await create(SCOPED, "bot"), 403);
	assert.equal(await create(READER, "owner"), 403);
	const discuss = async (token: string | null): Promise<number> =>
		(await call(`${hub.url}/api/models/lab/model/discussions`, { token, body: { title: "Hello", description: "x" } }))
			.status;
	assert.equal(await discuss(null), 401);
	assert.equal(await discuss(READER), 403);
	assert.equal(await discuss(STRANGER), 200);
	assert.equal(await discuss(SCOPED), 200);
	const asStranger = async (path: string, body: unknown): Promise<number> =>
		(await call(`${hub.url}/api/models/lab/model/discussions/${path}`, { token: STRANGER, body })).status;
	assert.equal(await asStranger("2/status", { status: "closed" }), 403);
	assert.equal(await asStranger("2/title", { title: "Mine now" }), 403);
	assert.equal(await asStranger("2/pin", { pinned: true }), 403);
	assert.equal(await asStranger("1/status", { status: "closed" }), 200);
	assert.equal(
		(
			await call(`${hub.url}/api/models/lab/model/settings`, {
				method: "PUT",
				token: STRANGER,
				body: { private: true },
			})
		).status,
		403,
	);
	const remove = { method: "DELETE", token: STRANGER, body: { name: "model", organization: "lab" } };
	assert.equal((await call(`${hub.url}/api/repos/delete`, remove)).status, 403);
	await call(`${hub.url}/api/models/lab/model/settings`, {
		method: "PUT",
		token: OWNER,
		body: { discussionsDisabled: true },
	});
	assert.equal(await discuss(STRANGER), 403);
});

test("bodies that are not what they should be get a 400 or a 413", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const send = async (path: string, body: unknown): Promise<number> =>
		(await call(`${hub.url}${path}`, { token: OWNER, body })).status;
	assert.equal(await send("/api/repos/create", "{"), 400);
	assert.equal(await send("/api/repos/create", {}), 400);
	assert.equal(await send("/api/repos/create", "[1]"), 400);
	assert.equal(await send("/api/models/lab/model/discussions", { title: "ab", description: "" }), 400);
	assert.equal(await send("/api/models/lab/model/discussions", { title: "abc", description: "x".repeat(65_537) }), 400);
	assert.equal(await send("/api/models/lab/model/paths-info/main", { paths: 7 }), 400);
	assert.equal(await send("/api/validate-yaml", "x".repeat(9_000_000)), 413);
	assert.equal(await send("/api/validate-yaml", { content: "---\na: [\n---\n" }), 400);
	assert.equal(
		await send("/api/settings/webhooks", { url: "file:///etc/passwd", watched: [{ type: "org", name: "lab" }] }),
		400,
	);
	assert.equal(
		await send("/api/settings/webhooks", { url: "http://x/", watched: [{ type: "org", name: "nobody" }] }),
		400,
	);
	assert.equal(
		await send("/api/settings/webhooks", { url: "http://x/", secret: "ü", watched: [{ type: "org", name: "lab" }] }),
		400,
	);
	assert.equal(await send("/api/models/lab/model/branch/..%2Fx", {}), 400);
	assert.equal((await call(`${hub.url}/api/models/lab/model/discussions/99`)).status, 404);
	assert.equal((await call(`${hub.url}/api/no-such-route`)).status, 404);
	assert.equal((await call(`${hub.url}/api/models/lab/model/tree/%E0%A4%A`)).status, 400);
});

test("downloads answer whole, in ranges, conditionally and by HEAD", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const pushed = await commit(hub, "lab/model", [
		file("ten.txt", "0123456789"),
		file("empty", ""),
		file("page.html", "<script>1</script>"),
	]);
	const url = `${hub.url}/lab/model/resolve/main/ten.txt`;
	const whole = await call(url);
	assert.equal(whole.text, "0123456789");
	assert.equal(whole.headers.get("x-repo-commit"), textAt(pushed.json, "commitOid"));
	const etag = whole.headers.get("etag") ?? "";
	assert.match(etag, /^"[0-9a-f]{40}"$/);
	const ranged = async (range: string): Promise<[number, string, string | null]> => {
		const answer = await call(url, { headers: { Range: range } });
		return [answer.status, answer.text, answer.headers.get("content-range")];
	};
	assert.deepEqual(await ranged("bytes=2-4"), [206, "234", "bytes 2-4/10"]);
	assert.deepEqual(await ranged("bytes=7-"), [206, "789", "bytes 7-9/10"]);
	assert.deepEqual(await ranged("bytes=-2"), [206, "89", "bytes 8-9/10"]);
	assert.deepEqual(await ranged("bytes=0-99"), [206, "0123456789", "bytes 0-9/10"]);
	assert.deepEqual((await ranged("bytes=10-")).slice(0, 1), [416]);
	assert.deepEqual((await ranged("nonsense")).slice(0, 2), [200, "0123456789"]);
	assert.equal((await call(url, { headers: { "If-None-Match": etag } })).status, 304);
	const head = await call(url, { method: "HEAD" });
	assert.equal(head.headers.get("content-length"), "10");
	const empty = await call(`${hub.url}/lab/model/resolve/main/empty`, { headers: { Range: "bytes=0-0" } });
	assert.deepEqual([empty.status, empty.headers.get("content-range")], [206, "bytes 0-0/0"]);
	const missing = await call(`${hub.url}/lab/model/resolve/main/never`);
	assert.deepEqual(
		[missing.status, missing.headers.get("x-error-code"), missing.headers.get("x-repo-commit")],
		[404, "EntryNotFound", textAt(pushed.json, "commitOid")],
	);
	// what people upload must not run in the pages' origin
	const html = await call(`${hub.url}/lab/model/resolve/main/page.html`);
	assert.match(html.headers.get("content-type") ?? "", /^text\/plain/);
	assert.match(html.headers.get("content-security-policy") ?? "", /sandbox/);
	for (const revision of ["main", "HEAD", "refs%2Fheads%2Fmain", "refs/heads/main", textAt(pushed.json, "commitOid")])
		assert.equal((await call(`${hub.url}/lab/model/resolve/${revision}/ten.txt`)).status, 200, revision);
	assert.deepEqual(requestedRange("bytes=5-2", 10), null);
	assert.deepEqual(requestedRange("bytes=0-0", 0), "unsatisfiable");
});

test("a Xet upload that does not add up is refused", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	await createRepo(hub, "lab/other");
	const token = async (repo: string): Promise<unknown> =>
		(await call(`${hub.url}/api/models/${repo}/xet-write-token/main`, { token: OWNER })).json;
	const mine = await token("lab/model");
	const cas = textAt(mine, "casUrl");
	const access = textAt(mine, "accessToken");
	const post = async (path: string, body: Buffer, bearer = access): Promise<number> =>
		(
			await fetch(`${cas}${path}`, {
				method: "POST",
				headers: { Authorization: `Bearer ${bearer}` },
				body: new Uint8Array(body),
			})
		).status;
	const xorbHash = Buffer.from("11".repeat(32), "hex");
	const chunk = (scheme: number, stored: Buffer, size: number): Buffer => {
		const header = Buffer.alloc(8);
		header.writeUIntLE(stored.byteLength, 1, 3);
		header.writeUInt8(scheme, 4);
		header.writeUIntLE(size, 5, 3);
		return Buffer.concat([header, stored]);
	};
	const shard = (sha: Buffer | null, length: number, start: number, end: number): Buffer => {
		const header = Buffer.alloc(48);
		header.write("HFRepoMetaData");
		const entry = Buffer.alloc(48);
		entry.writeUInt32LE(sha === null ? 0 : 0x40000000, 32);
		entry.writeUInt32LE(1, 36);
		const term = Buffer.alloc(48);
		xorbHash.copy(term);
		term.writeUInt32LE(length, 36);
		term.writeUInt32LE(start, 40);
		term.writeUInt32LE(end, 44);
		const metadata = Buffer.alloc(48);
		// the words of a hash lie in the file with their bytes the other way round
		for (let word = 0; sha !== null && word < 4; word++)
			metadata.writeBigUInt64LE(sha.readBigUInt64BE(word * 8), word * 8);
		return Buffer.concat([header, entry, term, ...(sha === null ? [] : [metadata]), Buffer.alloc(48, 0xff)]);
	};
	const text = Buffer.from("twelve bytes");
	const right = Buffer.from(sha256(text), "hex");
	assert.equal(await post("/v1/shards", shard(right, 12, 0, 1)), 400, "a xorb nobody uploaded");
	assert.equal(await post(`/v1/xorbs/default/${"11".repeat(32)}`, chunk(0, text, 12), "nonsense.x"), 401);
	assert.equal(
		await post(
			`/v1/xorbs/default/${"11".repeat(32)}`,
			chunk(0, text, 12),
			textAt(await token("lab/other"), "accessToken"),
		),
		401,
	);
	assert.equal(await post("/v1/xorbs/default/..%2f..%2fx", chunk(0, text, 12)), 400);
	assert.equal(await post(`/v1/xorbs/default/${"11".repeat(32)}`, chunk(0, text, 12)), 200);
	assert.equal(await post("/v1/shards", shard(right, 12, 0, 2)), 400, "more chunks than there are");
	assert.equal(await post("/v1/shards", shard(right, 11, 0, 1)), 413, "more bytes than stated");
	assert.equal(await post("/v1/shards", shard(randomBytes(32), 12, 0, 1)), 400, "another hash");
	assert.equal(await post("/v1/shards", Buffer.from("junk")), 400);
	assert.equal(await post("/v1/shards", shard(right, 12, 0, 1).subarray(0, 100)), 400);
	assert.equal(await post("/v1/shards", shard(right, 12, 0, 1)), 200);
	const use = [{ key: "lfsFile", value: { path: "t.bin", oid: sha256(text), algo: "sha256" } }];
	assert.equal((await commit(hub, "lab/model", use)).status, 200);
	assert.equal((await call(`${hub.url}/lab/model/resolve/main/t.bin`)).text, "twelve bytes");
	assert.equal(parseShard(shard(right, 12, 0, 1))[0]?.sha256, sha256(text));
	assert.equal(xetHash(xorbHash), "11".repeat(32));
});

test("chunks unpack by every scheme, and broken ones are refused", () => {
	for (const length of [1, 2, 3, 4, 5, 6, 7, 8, 1001, 1002, 1003, 1004]) {
		const plain = Buffer.from(Array.from({ length }, (_value, index) => (index * 7) % 251));
		const planes = [0, 1, 2, 3].map((plane) => plain.filter((_byte, index) => index % 4 === plane));
		const grouped = Buffer.concat(planes);
		assert.deepEqual(Buffer.from(ungroupBytes(grouped)), plain);
		assert.deepEqual(Buffer.from(decodeChunk(0, plain, length)), plain);
		assert.deepEqual(Buffer.from(decodeChunk(1, compress(plain), length)), plain);
		assert.deepEqual(Buffer.from(decodeChunk(2, compress(grouped), length)), plain);
		assert.throws(() => decodeChunk(0, plain, length + 1), /size/);
	}
	assert.throws(() => decodeChunk(1, Buffer.from("not a frame at all"), 5));
	assert.throws(() => decodeChunk(9, Buffer.from("x"), 1), /unknown scheme/);
});

test("fault switches fail, delay and cut as told, and then stop", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	hub.faults.set({
		routes: [
			{ path: "^/api/whoami", status: 429, retryAfterSeconds: 7 },
			{ path: "/commit/", method: "POST", kind: "status-after", status: 502 },
			{ path: "/refs", kind: "disconnect" },
		],
	});
	const limited = await call(`${hub.url}/api/whoami-v2`, { token: OWNER });
	assert.deepEqual(
		[limited.status, limited.headers.get("retry-after"), limited.headers.get("ratelimit")],
		[429, "7", '"api";r=0;t=7'],
	);
	assert.equal((await call(`${hub.url}/api/whoami-v2`, { token: OWNER })).status, 200);
	await assert.rejects(call(`${hub.url}/api/models/lab/model/refs`));
	const broken = await commit(hub, "lab/model", [file("a", "a")]);
	assert.equal(broken.status, 502);
	// the work was done behind the failure, and doing it again adds nothing
	const again = await commit(hub, "lab/model", [file("a", "a")]);
	assert.equal(again.status, 200);
	const commits = await call(`${hub.url}/api/models/lab/model/commits/main`);
	assert.equal(commits.headers.get("x-total-count"), "2");
	assert.equal(
		(await call(`${hub.url}/__local-hub/faults`, { token: hub.adminToken, body: { routes: [{ path: "(" }] } })).status,
		400,
	);
});

test("pages of other origins may read what is public and send no token", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const read = await call(`${hub.url}/lab/model/resolve/main/.gitattributes`, {
		headers: { Origin: "http://elsewhere" },
	});
	assert.equal(read.headers.get("access-control-allow-origin"), "*");
	const preflight = await call(`${hub.url}/api/repos/create`, {
		method: "OPTIONS",
		headers: { Origin: "http://elsewhere" },
	});
	assert.equal(preflight.status, 204);
	assert.equal(preflight.headers.get("access-control-allow-methods"), "GET, HEAD");
	assert.doesNotMatch(preflight.headers.get("access-control-allow-headers") ?? "", /authorization/i);
});

test("of concurrent commits on one parent exactly one wins", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const parentCommit = textAt((await call(`${hub.url}/api/models/lab/model`)).json, "sha");
	const answers = await Promise.all(
		Array.from({ length: 8 }, (_value, index) => commit(hub, "lab/model", [file(`f${index}`, "x")], { parentCommit })),
	);
	assert.deepEqual(answers.map((answer) => answer.status).sort(), [200, ...Array.from({ length: 7 }, () => 412)]);
});

test("a client that hangs up in the middle of an upload leaves nothing", async (context) => {
	const hub = await testHub(context);
	await createRepo(hub, "lab/model");
	const content = randomBytes(100_000);
	const oid = sha256(content);
	const href = textAt(await lfsAction(hub, "lab/model", oid, content.byteLength), "actions.upload.href");
	await new Promise<void>((resolve) => {
		const upload = request(href, { method: "PUT", headers: { "Content-Length": String(content.byteLength) } });
		upload.on("error", () => resolve());
		upload.write(content.subarray(0, 50_000), () => setTimeout(() => upload.destroy(), 50));
		upload.on("close", () => resolve());
	});
	const use = [{ key: "lfsFile", value: { path: "w.bin", oid, algo: "sha256" } }];
	assert.equal((await commit(hub, "lab/model", use)).status, 400);
	assert.equal((await fetch(href, { method: "PUT", body: new Uint8Array(content) })).status, 200);
	assert.equal((await commit(hub, "lab/model", use)).status, 200);
});
