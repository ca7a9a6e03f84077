import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { type TestContext, test } from "node:test";
import type { LocalHub } from "../../src/local-hub/start-local-hub.ts";
import {
	at,
	call,
	commit,
	createRepo,
	file,
	OWNER,
	READER,
	run,
	STRANGER,
	temporaryFolder,
	testHub,
	textAt,
} from "../support/local-hub-fixture.ts";

const path = [
	process.env["PATH"] ?? "",
	...(process.env["GIT_LFS_FOLDER"] ? [process.env["GIT_LFS_FOLDER"]] : []),
].join(delimiter);
const has = (...words: string[]): boolean => spawnSync("git", words, { env: { PATH: path } }).status === 0;
const withoutGit = has("--version") ? false : "skipped: git is not installed";
const withoutLfs = has("lfs", "version") ? false : "skipped: git-lfs is not installed";

async function workplace(t: TestContext) {
	const hub = await testHub(t);
	await createRepo(hub, "owner/model");
	await commit(hub, "owner/model", [file("README.md", "# Hello\n"), file("deep/er/file.txt", "text")]);
	const folder = await temporaryFolder(t);
	const git = async (args: readonly string[], directory = folder) => {
		const { code, stdout, stderr } = await run("git", ["-C", directory, ...args], {
			PATH: path,
			HOME: folder,
			GIT_TERMINAL_PROMPT: "0",
			GIT_AUTHOR_NAME: "Owner",
			GIT_AUTHOR_EMAIL: "owner@example.invalid",
			GIT_COMMITTER_NAME: "Owner",
			GIT_COMMITTER_EMAIL: "owner@example.invalid",
			GIT_CONFIG_NOSYSTEM: "1",
		});
		return { code, out: stdout, said: stderr };
	};
	const done = async (args: readonly string[], directory = folder): Promise<string> => {
		const { code, out, said } = await git(args, directory);
		assert.equal(code, 0, `git ${args.join(" ")}: ${said}`);
		return out.trim();
	};
	return { hub, folder, git, done };
}

const address = (hub: LocalHub, token: string | null, repo = "owner/model"): string =>
	token === null ? `${hub.url}/${repo}` : `${hub.url.replace("://", `://user:${token}@`)}/${repo}.git`;

async function head(hub: LocalHub, revision = "main"): Promise<string> {
	return textAt((await call(`${hub.url}/api/models/owner/model/revision/${revision}`, { token: OWNER })).json, "sha");
}

test("git clones what the API wrote, pushes what the API then reads, and both have the same commits", {
	skip: withoutGit,
}, async (t) => {
	const { hub, folder, done } = await workplace(t);
	await done(["clone", "--quiet", address(hub, OWNER), "work"]);
	const work = join(folder, "work");
	assert.equal(await done(["rev-parse", "HEAD"], work), await head(hub));
	assert.equal(readFileSync(join(work, "deep/er/file.txt"), "utf8"), "text");
	assert.equal(await done(["fsck", "--strict"], work), "");

	mkdirSync(join(work, "bin"));
	writeFileSync(join(work, "bin", "run.sh"), "#!/bin/sh\n");
	chmodSync(join(work, "bin", "run.sh"), 0o755);
	writeFileSync(join(work, "README.md"), "# Pushed\n");
	await done(["add", "-A"], work);
	await done(["commit", "--quiet", "-m", "By git", "-m", "With a body."], work);
	await done(["tag", "-a", "v1", "-m", "First"], work);
	await done(["push", "--quiet", "origin", "main", "v1", "main:side"], work);
	const pushed = await done(["rev-parse", "HEAD"], work);
	for (const revision of ["main", "v1", "side"]) assert.equal(await head(hub, revision), pushed, revision);
	const raw = await call(`${hub.url}/owner/model/resolve/main/README.md`);
	assert.equal(raw.text, "# Pushed\n");
	const log = await call(`${hub.url}/api/models/owner/model/commits/main`);
	assert.deepEqual([at(log.json, "0.title"), at(log.json, "0.message")], ["By git", "With a body."]);

	await commit(hub, "owner/model", [file("api.txt", "later")]);
	await done(["pull", "--quiet", "--ff-only", "origin", "main"], work);
	assert.equal(readFileSync(join(work, "api.txt"), "utf8"), "later");
	await done(["push", "--quiet", "origin", ":side"], work);
	assert.equal((await call(`${hub.url}/api/models/owner/model/revision/side`)).status, 404);
	assert.equal(
		await done(["cat-file", "-t", (await done(["ls-remote", "origin", "refs/tags/v1"], work)).slice(0, 40)], work),
		"tag",
	);
});

test("who may not is refused, and what the Hub refuses of a push moves no ref", { skip: withoutGit }, async (t) => {
	const { hub, folder, git, done } = await workplace(t);
	const before = await head(hub);
	await done(["clone", "--quiet", address(hub, null), "work"]);
	const work = join(folder, "work");
	writeFileSync(join(work, "more.txt"), "more");
	await done(["add", "-A"], work);
	await done(["commit", "--quiet", "-m", "More"], work);
	for (const [token, expected] of [
		[null, /could not read Username|Authentication failed/],
		[STRANGER, /403/],
		[READER, /403/],
		["hf_nobody", /Authentication failed/],
	] as const) {
		const { code, said } = await git(["push", address(hub, token), "main"], work);
		assert.notEqual(code, 0);
		assert.match(said, expected);
	}
	writeFileSync(
		join(work, "large.txt"),
		randomBytes(11 * 1024 * 1024)
			.toString("latin1")
			.slice(0, 11 * 1024 * 1024),
	);
	await done(["add", "-A"], work);
	await done(["commit", "--quiet", "-m", "Large"], work);
	const owner = address(hub, OWNER);
	assert.match((await git(["push", owner, "main"], work)).said, /larger than 10 MiB.*large\.txt/);
	await done(["reset", "--quiet", "--hard", "HEAD~1"], work);
	const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 5\n`;
	writeFileSync(join(work, "model.safetensors"), pointer);
	await done(["add", "-A"], work);
	await done(["commit", "--quiet", "-m", "A pointer to nothing"], work);
	assert.match(
		(await git(["push", owner, "main"], work)).said,
		/pointed to a file that does not exist.*model\.safetensors/,
	);
	assert.match((await git(["push", owner, "HEAD:refs/notes/x"], work)).said, /Only branches, tags/);
	assert.match((await git(["push", owner, ":main"], work)).said, /main branch cannot be deleted/);
	assert.equal(await head(hub), before);

	await call(`${hub.url}/api/models/owner/model/settings`, { method: "PUT", token: OWNER, body: { private: true } });
	assert.match((await git(["clone", address(hub, null), "no"])).said, /could not read Username/);
	assert.match((await git(["clone", address(hub, STRANGER), "no"])).said, /not found|403/);
	await done(["clone", "--quiet", address(hub, READER), "yes"]);
});

test("git-lfs pushes, clones and locks large files", { skip: withoutGit || withoutLfs }, async (t) => {
	const { hub, folder, git, done } = await workplace(t);
	await done(["lfs", "install", "--skip-repo"]);
	await done(["clone", "--quiet", address(hub, OWNER), "work"]);
	const work = join(folder, "work");
	const weights = randomBytes(3_000_000);
	writeFileSync(join(work, "model.safetensors"), weights);
	await done(["add", "-A"], work);
	await done(["commit", "--quiet", "-m", "Weights"], work);
	await done(["push", "--quiet", "origin", "main"], work);
	const tree = await call(`${hub.url}/api/models/owner/model/tree/main`);
	const entry = (tree.json as { path: string; size: number; lfs?: { size: number } }[]).find(
		(one) => one.path === "model.safetensors",
	);
	assert.deepEqual([entry?.size, entry?.lfs?.size], [weights.byteLength, weights.byteLength]);
	await done(["clone", "--quiet", address(hub, READER), "again"]);
	assert.ok(readFileSync(join(folder, "again", "model.safetensors")).equals(weights));
	await done(["lfs", "lock", "model.safetensors"], work);
	assert.match(await done(["lfs", "locks"], work), /model\.safetensors\s+owner/);
	assert.notEqual((await git(["lfs", "lock", "model.safetensors"], work)).code, 0);
	await done(["lfs", "unlock", "model.safetensors"], work);
	assert.equal(await done(["lfs", "locks"], work), "");
});
