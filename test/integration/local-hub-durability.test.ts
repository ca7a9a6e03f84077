import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { commitOid, gitBlobOid, lfsEntry, lfsPointer, treeObjects } from "../../src/local-hub/git-objects.ts";
import { startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import {
	at,
	BOT,
	call,
	commit,
	createRepo,
	file,
	OWNER,
	root,
	temporaryFolder,
	testHub,
	textAt,
	users,
} from "../support/local-hub-fixture.ts";

const execute = promisify(execFile);

test("everything is as it was after a restart", async (context) => {
	const dataDirectory = await temporaryFolder(context);
	const before = await testHub(context, { dataDirectory });
	await createRepo(before, "lab/model");
	const pushed = await commit(before, "lab/model", [file("config.json", "{}"), file("deep/a.txt", "a")]);
	await commit(before, "lab/model", [file("b", "b")], { token: BOT, query: "?create_pr=1", summary: "Propose b" });
	await call(`${before.url}/api/models/lab/model/tag/main`, { token: OWNER, body: { tag: "v1" } });
	await call(`${before.url}/api/models/lab/model/settings`, { method: "PUT", token: OWNER, body: { gated: "auto" } });
	await call(`${before.url}/api/repos/move`, { token: OWNER, body: { fromRepo: "lab/model", toRepo: "lab/new" } });
	const collection = await call(`${before.url}/api/collections`, {
		token: OWNER,
		body: { title: "All", namespace: "lab", item: { type: "model", id: "lab/new" } },
	});
	const slug = textAt(collection.json, "slug");
	const views = async (url: string): Promise<unknown[]> =>
		Promise.all(
			[
				"api/models/lab/new",
				"api/models/lab/new/refs?include_prs=1",
				"api/models/lab/new/commits/refs%2Fpr%2F1",
				"api/models/lab/new/tree/main?recursive=true",
				"api/models/lab/new/discussions/1",
				`api/collections/${slug}`,
			].map(async (path) => {
				const answer = await call(`${url}/${path}`, { token: OWNER });
				assert.equal(answer.status, 200, `${path}: ${answer.text}`);
				return JSON.parse(answer.text.replaceAll(url, "HUB"));
			}),
		);
	const was = await views(before.url);
	await before.close();
	const after = await testHub(context, { dataDirectory });
	assert.deepEqual(await views(after.url), was);
	const old = await call(`${after.url}/api/models/lab/model`, { token: OWNER });
	assert.deepEqual([old.status, old.headers.get("location")], [307, "/api/models/lab/new"]);
	assert.equal(at(was[0], "sha"), at(pushed.json, "commitOid"));
});

test("a second Hub is refused the folder of a running one, and a stale lock is taken over", async (context) => {
	const hub = await testHub(context);
	await assert.rejects(startLocalHub({ dataDirectory: hub.dataDirectory, users }), /open already/);
	const folder = await temporaryFolder(context);
	const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
	context.after(() => child.kill("SIGKILL"));
	await writeFile(join(folder, "lock"), String(child.pid));
	await assert.rejects(startLocalHub({ dataDirectory: folder, users }), new RegExp(`process ${child.pid}`));
	child.kill("SIGKILL");
	await once(child, "exit");
	await testHub(context, { dataDirectory: folder });
});

async function startChild(dataDirectory: string): Promise<{ child: ChildProcess; url: string }> {
	const script = `
import { startLocalHub } from ${JSON.stringify(join(root, "src/local-hub/start-local-hub.ts"))};
const hub = await startLocalHub({ dataDirectory: process.argv[1], users: ${JSON.stringify(users)} });
console.log(hub.url);
`;
	const child = spawn(process.execPath, ["--input-type=module", "-e", script, dataDirectory], {
		stdio: ["ignore", "pipe", "inherit"],
	});
	const [line] = await once(child.stdout, "data");
	return { child, url: String(line).trim() };
}

test("SIGKILL in the middle of commits leaves whole commits only, and all that were answered", async (context) => {
	const dataDirectory = await temporaryFolder(context);
	const answered: string[] = [];
	const rounds = 4;
	for (let round = 0; round < rounds; round++) {
		const { child, url } = await startChild(dataDirectory);
		if (round === 0) {
			const made = await call(`${url}/api/repos/create`, {
				token: OWNER,
				body: { organization: "lab", name: "model" },
			});
			assert.equal(made.status, 200);
		}
		const gone = once(child, "exit");
		const pushing = (async () => {
			for (let n = 0; n < 10_000; n++) {
				const name = `${round}-${n}`;
				const lines = [
					{ key: "header", value: { summary: name } },
					// a pair in one commit: either both are there or neither
					file(`left/${name}`, name),
					file(`right/${name}`, name),
				];
				try {
					const answer = await call(`${url}/api/models/lab/model/commit/main`, {
						token: OWNER,
						body: lines.map((line) => JSON.stringify(line)).join("\n"),
						headers: { "Content-Type": "application/x-ndjson" },
					});
					if (answer.status === 200) answered.push(name);
				} catch {
					return;
				}
			}
		})();
		await new Promise((resolve) => setTimeout(resolve, 150 + round * 83));
		child.kill("SIGKILL");
		await gone;
		await pushing;
	}
	assert.ok(answered.length > rounds, `only ${answered.length} commits were made`);

	const hub = await testHub(context, { dataDirectory });
	let files: unknown[] = [];
	let next: string | null = `${hub.url}/api/models/lab/model/tree/main?recursive=true`;
	while (next !== null) {
		const page: Awaited<ReturnType<typeof call>> = await call(next);
		assert.ok(Array.isArray(page.json));
		files = [...files, ...page.json];
		next = /<([^>]+)>/.exec(page.headers.get("link") ?? "")?.[1] ?? null;
	}
	const paths = new Set(
		files.filter((entry) => at(entry, "type") === "file").map((entry) => String(at(entry, "path"))),
	);
	for (const name of answered) assert.ok(paths.has(`left/${name}`), `${name} was answered and is lost`);
	for (const path of paths)
		if (path.startsWith("left/")) {
			assert.ok(paths.has(path.replace("left/", "right/")), `${path} lacks its pair`);
			const content = await call(`${hub.url}/lab/model/resolve/main/${path}`);
			assert.equal(content.text, path.slice(5));
		}
	const leftovers = (await readdir(join(dataDirectory, "repos"))).filter((name) => !/^[0-9a-f]{24}$/.test(name));
	assert.deepEqual(leftovers, []);
});

test("a pull request whose ref and discussion a kill has parted is put right", async (context) => {
	const dataDirectory = await temporaryFolder(context);
	const first = await testHub(context, { dataDirectory });
	await createRepo(first, "lab/model");
	for (const name of ["a", "b", "c"])
		await commit(first, "lab/model", [file(name, name)], { token: BOT, query: "?create_pr=1", summary: name });
	const folder = join(dataDirectory, "repos", String((await readdir(join(dataDirectory, "repos")))[0]), "discussions");
	const second = await readFile(join(folder, "2.json"), "utf8");
	const third = await readFile(join(folder, "3.json"), "utf8");
	await commit(first, "lab/model", [file("b2", "b")], { revision: "refs/pr/2", summary: "more of b" });
	await call(`${first.url}/api/models/lab/model/discussions/3/merge`, { token: OWNER, body: {} });
	await first.close();
	// as if the kill had come after the refs and before the discussions
	await rm(join(folder, "1.json"));
	await writeFile(join(folder, "2.json"), second);
	await writeFile(join(folder, "3.json"), third);
	const hub = await testHub(context, { dataDirectory });
	const refs = await call(`${hub.url}/api/models/lab/model/refs?include_prs=1`);
	assert.deepEqual(
		[0, 1, 2].map((index) => at(refs.json, `pullRequests.${index}.name`)),
		["2", "3", undefined],
	);
	const details = async (num: number): Promise<unknown> =>
		(await call(`${hub.url}/api/models/lab/model/discussions/${num}`)).json;
	assert.equal(at(await details(2), "events.2.data.subject"), "more of b");
	assert.equal(at(await details(3), "status"), "merged");
});

test("the number of a deleted discussion is not given out again", async (context) => {
	const dataDirectory = await temporaryFolder(context);
	const first = await testHub(context, { dataDirectory });
	await createRepo(first, "lab/model");
	const open = (url: string): ReturnType<typeof call> =>
		call(`${url}/api/models/lab/model/discussions`, {
			token: OWNER,
			body: { title: "Hello", description: "", pullRequest: true },
		});
	await open(first.url);
	await open(first.url);
	const base = `${first.url}/api/models/lab/model`;
	assert.equal((await call(`${base}/discussions/2`, { method: "DELETE", token: OWNER })).status, 200);
	assert.equal(at((await call(`${base}/refs?include_prs=1`)).json, "pullRequests.1"), undefined);
	await first.close();
	const hub = await testHub(context, { dataDirectory });
	assert.equal((await call(`${hub.url}/api/models/lab/model/discussions/2`)).status, 404);
	assert.equal(at((await open(hub.url)).json, "num"), 3);
});

test("a torn record of an upload does not stop the start", async (context) => {
	const dataDirectory = await temporaryFolder(context);
	const first = await testHub(context, { dataDirectory });
	await createRepo(first, "lab/model");
	await first.close();
	const [id] = await readdir(join(dataDirectory, "repos"));
	await writeFile(join(dataDirectory, "repos", String(id), "lfs.ndjson"), '{"oid":"abc","size":1,"pus');
	await mkdir(join(dataDirectory, "repos", `${"a".repeat(24)}.new`));
	const hub = await testHub(context, { dataDirectory });
	assert.equal((await call(`${hub.url}/api/models/lab/model`)).status, 200);
});

test("blob, tree and commit ids are those of git", async (context) => {
	const folder = await temporaryFolder(context);
	const environment = {
		PATH: process.env["PATH"] ?? "",
		GIT_AUTHOR_NAME: "bot",
		GIT_AUTHOR_EMAIL: "bot@users.noreply.local",
		GIT_COMMITTER_NAME: "bot",
		GIT_COMMITTER_EMAIL: "bot@users.noreply.local",
		GIT_AUTHOR_DATE: "1700000000 +0000",
		GIT_COMMITTER_DATE: "1700000000 +0000",
		GIT_CONFIG_GLOBAL: "/dev/null",
		HOME: folder,
	};
	const git = async (...args: string[]): Promise<string> =>
		(await execute("git", args, { cwd: folder, env: environment })).stdout.trim();
	try {
		await git("init", "-q");
	} catch {
		context.skip("skipped: no git");
		return;
	}
	const contents = new Map([
		["a.txt", "a"],
		["a/b/c.txt", "deep"],
		["a/b.txt", "b"],
		["a-b", "sorts before the folder a"],
		["ünïcode", "u"],
		["weights.bin", lfsPointer("f".repeat(64), 123)],
	]);
	const files = new Map(
		[...contents].map(([path, content]) => {
			const bytes = Buffer.from(content);
			return [path, { oid: gitBlobOid(bytes), size: bytes.byteLength }] as const;
		}),
	);
	assert.equal(lfsEntry("f".repeat(64), 123).oid, files.get("weights.bin")?.oid);
	for (const [path, content] of contents) {
		await mkdir(join(folder, path, ".."), { recursive: true });
		await writeFile(join(folder, path), content);
	}
	await git("add", "-A");
	const tree = await git("write-tree");
	assert.equal(treeObjects(files).root, tree);
	assert.equal(
		treeObjects(files).directories.find((one) => one.path === "a/b")?.oid,
		await git("rev-parse", `${tree}:a/b`),
	);
	const made = await git("commit-tree", tree, "-m", "A message");
	const ours = commitOid({ tree, parents: [], author: "bot", date: new Date(1_700_000_000_000), message: "A message" });
	assert.equal(ours, made);
	assert.ok((await readFile(join(folder, "a.txt"), "utf8")) === "a");
});
