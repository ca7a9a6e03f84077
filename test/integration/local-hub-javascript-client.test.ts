import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { openAsBlob } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
	commit,
	countCommits,
	createBranch,
	createCollection,
	createRepo,
	deleteBranch,
	deleteCollection,
	deleteFile,
	deleteRepo,
	downloadFile,
	fileDownloadInfo,
	fileExists,
	HubApiError,
	listCollections,
	listCommits,
	listFiles,
	listModels,
	modelInfo,
	pathsInfo,
	repoExists,
	uploadFile,
	uploadFiles,
	whoAmI,
} from "@huggingface/hub";
import { BOT, OWNER, STRANGER, temporaryFolder, testHub } from "../support/local-hub-fixture.ts";

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
	const all: T[] = [];
	for await (const item of items) all.push(item);
	return all;
}

test("the stock JavaScript client uploads, lists, reads and deletes", async (context) => {
	const hub = await testHub(context);
	const to = { hubUrl: hub.url, accessToken: OWNER };
	const repo = "owner/small";

	const me = await whoAmI(to);
	assert.equal(me.name, "owner");
	assert.equal(await repoExists({ ...to, repo }), false);
	const created = await createRepo({ ...to, repo, private: false });
	assert.equal(created.repoUrl, `${hub.url}/owner/small`);
	assert.equal(await repoExists({ ...to, repo }), true);

	const empty = new Blob([]);
	const weights = randomBytes(50_000);
	await uploadFiles({
		...to,
		repo,
		commitTitle: "Add a model",
		files: [
			{ path: "config.json", content: new Blob(['{"model_type":"llama","architectures":["LlamaForCausalLM"]}']) },
			{ path: "README.md", content: new Blob(["---\nlicense: mit\nbase_model: lab/base\n---\n# Small\n"]) },
			{ path: "deep/er/weights.bin", content: new Blob([weights]) },
			{ path: "empty.txt", content: empty },
			{ path: "naïve ünïcode 1.txt", content: new Blob(["ü"]) },
		],
	});

	const listed = await collect(listFiles({ ...to, repo, recursive: true }));
	const weightsEntry = listed.find((entry) => entry.path === "deep/er/weights.bin");
	assert.equal(weightsEntry?.lfs?.oid, createHash("sha256").update(weights).digest("hex"));
	assert.deepEqual(listed.map((entry) => entry.path).sort(), [
		".gitattributes",
		"README.md",
		"config.json",
		"deep",
		"deep/er",
		"deep/er/weights.bin",
		"empty.txt",
		"naïve ünïcode 1.txt",
	]);

	const downloaded = await downloadFile({ ...to, repo, path: "deep/er/weights.bin" });
	assert.ok(downloaded !== null);
	assert.ok(Buffer.from(await downloaded.arrayBuffer()).equals(weights));
	const emptied = await downloadFile({ ...to, repo, path: "empty.txt" });
	assert.equal(emptied?.size, 0);
	const odd = await downloadFile({ ...to, repo, path: "naïve ünïcode 1.txt" });
	assert.equal(await odd?.text(), "ü");
	assert.equal(await downloadFile({ ...to, repo, path: "absent.txt" }), null);
	assert.equal(await fileExists({ ...to, repo, path: "absent.txt" }), false);
	assert.equal(await fileExists({ ...to, repo, path: "config.json" }), true);
	const information = await fileDownloadInfo({ ...to, repo, path: "deep/er/weights.bin" });
	assert.equal(information?.size, 50_000);

	const info = await modelInfo({ ...to, name: repo, additionalFields: ["sha", "tags", "cardData", "library_name"] });
	assert.equal(info.task, "text-generation");
	assert.ok(info.tags.includes("base_model:finetune:lab/base"));
	assert.equal(info.library_name, "transformers");
	const paths = await pathsInfo({ ...to, repo, paths: ["config.json", "deep", "absent"], expand: true });
	assert.deepEqual(
		paths.map((entry) => [entry.path, entry.type, entry.lastCommit?.title]),
		[
			["config.json", "file", "Add a model"],
			["deep", "directory", "Add a model"],
		],
	);

	await deleteFile({ ...to, repo, path: "empty.txt" });
	assert.equal(await countCommits({ ...to, repo }), 3);
	const commits = await collect(listCommits({ ...to, repo, batchSize: 2 }));
	assert.equal(commits.length, 3);
	assert.equal(commits[2]?.title, "initial commit");
	assert.ok(commits[0] !== undefined && commits[0].date.getTime() <= Date.now());

	await createBranch({ ...to, repo, branch: "next/one" });
	await uploadFile({ ...to, repo, branch: "next/one", file: { path: "only-here.txt", content: new Blob(["x"]) } });
	assert.equal(await fileExists({ ...to, repo, path: "only-here.txt", revision: "next/one" }), true);
	assert.equal(await fileExists({ ...to, repo, path: "only-here.txt" }), false);
	const onBranch = await collect(listFiles({ ...to, repo, revision: "next/one", path: "deep" }));
	assert.deepEqual(
		onBranch.map((entry) => entry.path),
		["deep/er"],
	);
	await deleteBranch({ ...to, repo, branch: "next/one" });

	const models = await collect(listModels({ hubUrl: hub.url, search: { owner: "owner", tags: ["license:mit"] } }));
	assert.deepEqual(
		models.map((model) => model.name),
		[repo],
	);
	await deleteRepo({ ...to, repo });
	assert.equal(await repoExists({ ...to, repo }), false);
});

test("the stock JavaScript client opens pull requests and meets the refusals", async (context) => {
	const hub = await testHub(context);
	const to = { hubUrl: hub.url, accessToken: OWNER };
	const repo = "lab/shared";
	await createRepo({ ...to, repo });
	const first = await uploadFile({ ...to, repo, file: { path: "a.txt", content: new Blob(["a"]) } });

	const proposal = await commit({
		hubUrl: hub.url,
		accessToken: STRANGER,
		repo,
		title: "Propose b",
		isPullRequest: true,
		operations: [{ operation: "addOrUpdate", path: "b.txt", content: new Blob(["b"]) }],
	});
	assert.equal(proposal?.pullRequestUrl, `${hub.url}/lab/shared/discussions/1`);
	const inPull = await collect(listFiles({ ...to, repo, revision: "refs/pr/1" }));
	assert.ok(inPull.some((entry) => entry.path === "b.txt"));

	const refusal = async (work: Promise<unknown>): Promise<number> => {
		const error = await work.then(
			() => null,
			(caught: unknown) => caught,
		);
		assert.ok(error instanceof HubApiError, String(error));
		return error.statusCode;
	};
	const put = (accessToken: string, parentCommit?: string): Promise<unknown> =>
		commit({
			hubUrl: hub.url,
			accessToken,
			repo,
			title: "Put",
			...(parentCommit === undefined ? {} : { parentCommit }),
			operations: [{ operation: "addOrUpdate", path: "c.txt", content: new Blob([accessToken]) }],
		});
	assert.equal(await refusal(put(STRANGER)), 403);
	assert.equal(await refusal(put("hf_nobody_has_this")), 401);
	await put(BOT);
	assert.equal(await refusal(put(OWNER, first?.commit.oid)), 412);
	assert.equal(await refusal(createRepo({ ...to, repo })), 409);
	assert.equal(await refusal(createRepo({ hubUrl: hub.url, accessToken: STRANGER, repo: "lab/mine" })), 403);

	const made = await createCollection({
		...to,
		collection: { title: "Variants", namespace: "lab" },
	});
	const found = await collect(listCollections({ hubUrl: hub.url, search: { owner: ["lab"] } }));
	assert.deepEqual(
		found.map((one) => one.slug),
		[made.slug],
	);
	await deleteCollection({ ...to, slug: made.slug });
});

test("the stock JavaScript client uploads 100 MB in parts, and gets the same bytes back", async (context) => {
	const hub = await testHub(context);
	const to = { hubUrl: hub.url, accessToken: OWNER };
	const repo = "owner/large";
	await createRepo({ ...to, repo });
	const folder = await temporaryFolder(context);
	const path = join(folder, "model.safetensors");
	const size = 104_857_601;
	const handle = await open(path, "w");
	await handle.truncate(size);
	for (let offset = 0; offset < size; offset += 20_000_000) await handle.write(randomBytes(4096), 0, 4096, offset);
	await handle.close();

	const before = process.memoryUsage.rss();
	await uploadFile({ ...to, repo, file: { path: "model.safetensors", content: await openAsBlob(path) } });
	const info = await fileDownloadInfo({ ...to, repo, path: "model.safetensors" });
	assert.equal(info?.size, size);
	const sha256 = createHash("sha256");
	const original = createHash("sha256");
	const response = await fetch(`${hub.url}/owner/large/resolve/main/model.safetensors`);
	assert.ok(response.body !== null);
	for await (const chunk of response.body) sha256.update(chunk);
	for await (const chunk of (await openAsBlob(path)).stream()) original.update(chunk);
	const digest = sha256.digest("hex");
	assert.equal(digest, original.digest("hex"));
	assert.equal(response.headers.get("etag"), `"${digest}"`);
	context.diagnostic(`resident memory grew by ${Math.round((process.memoryUsage.rss() - before) / 1e6)} MB`);
});
