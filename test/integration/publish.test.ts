import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { createRepo, deleteRepo, listCommits, modelInfo, uploadFiles } from "@huggingface/hub";
import { commentsOf } from "../../src/hub/discussion.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { listRefs } from "../../src/hub/list-refs.ts";
import { listRepoFiles } from "../../src/hub/list-repo-files.ts";
import { updateRepoSettings } from "../../src/hub/update-repo-settings.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import type { Manifest } from "../../src/protocol/manifest.ts";
import { recipeDirectory } from "../../src/protocol/recipe.ts";
import { commitFiles } from "../../src/publish/commit-files.ts";
import { repoState } from "../../src/publish/create-private-repo.ts";
import { followVisibility } from "../../src/publish/follow-visibility.ts";
import { type PublishOutcome, publish } from "../../src/publish/publish.ts";
import { createPublishPorts } from "../../src/publish/publish-ports.ts";
import { readPublishedManifests } from "../../src/publish/published-manifests.ts";
import { refreshCard } from "../../src/publish/refresh-card.ts";
import { repoSettings } from "../../src/publish/repo-settings.ts";
import { recipeOf } from "../support/recipe-of.ts";
import {
	pushTinySource,
	readTinyManifest,
	TINY_RECIPES,
	TINY_SOURCE,
	TINY_VERIFICATION,
	type TinyRecipe,
	tinyDirectory,
} from "../support/tiny-variants.ts";

const OWNER = "hf_owner_token";
const BOT = "hf_bot_token";
const JOB = "3f0d5a52-6b3a-4f5e-9f0e-1d2c3b4a5f60";

let hub: LocalHub;
let work: string;
const sources = new Map<string, string>();

before(async () => {
	work = await mkdtemp(join(tmpdir(), "yaqa-publish-"));
	hub = await startLocalHub({
		dataDirectory: join(work, "hub"),
		users: [
			{ name: "owner", token: OWNER },
			{ name: "bot", token: BOT },
		],
	});
});

after(async () => {
	await hub.close();
	await rm(work, { recursive: true, force: true });
});

function access(accessToken: string, wrapped: typeof fetch = fetch) {
	const sleep = async (): Promise<void> => {};
	return { hubUrl: hub.url, accessToken, fetch: createHubFetch({ hubUrl: hub.url, fetch: wrapped, sleep }) };
}

/** A source repo with the tiny model; answers its commit. */
async function source(name: string, visibility: "public" | "private" = "public"): Promise<string> {
	const known = sources.get(name);
	if (known !== undefined) return known;
	const sha = await pushTinySource(access(OWNER), name, visibility);
	sources.set(name, sha);
	return sha;
}

/** A variant as if it had been made from `sourceRepo`. */
async function variantOf(
	recipe: TinyRecipe,
	sourceRepo: string,
	sha: string,
	edit: (manifest: Manifest) => void = () => {},
) {
	const directory = await mkdtemp(join(work, "variant-"));
	await cp(tinyDirectory(recipe), directory, { recursive: true });
	const manifest = await readTinyManifest(recipe);
	manifest.source = { repo: sourceRepo, revision: sha, license: "apache-2.0" };
	edit(manifest);
	await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest, null, 2));
	return { manifest, directory };
}

async function assertOk(outcome: Promise<PublishOutcome>) {
	const result = await outcome;
	assert.ok(result.ok, result.ok ? "" : result.refusal.message);
	return result;
}

async function textOf(repo: string, path: string, token: string | null = null): Promise<string> {
	const response = await fetch(`${hub.url}/${repo}/resolve/main/${path}`, {
		headers: token === null ? {} : { authorization: `Bearer ${token}` },
	});
	assert.equal(response.status, 200, `${repo}/${path}`);
	return response.text();
}

describe("staging", () => {
	test("brings every file back as it was, and leaves nothing behind", async () => {
		const ports = createPublishPorts({
			publisher: access(BOT),
			reader: access(BOT),
			discussions: access(BOT),
			namespace: "bot",
			publicUrl: null,
		});
		const variants = await Promise.all(
			TINY_RECIPES.map(async (recipe) => ({
				variant: { recipe, manifest: await readTinyManifest(recipe) },
				directory: tinyDirectory(recipe),
			})),
		);
		const job = { id: JOB };
		for (let round = 0; round < 2; round++) {
			const staged = await ports.stage({ job, variants, verificationPath: TINY_VERIFICATION });
			assert.deepEqual(staged, { ok: true, stagingRepo: `bot/staging-${JOB}` });
		}
		const repo = `bot/staging-${JOB}`;
		assert.equal((await fetch(`${hub.url}/api/models/${repo}`)).status, 401);
		let commits = 0;
		for await (const _ of listCommits({ ...access(BOT), repo })) commits++;
		assert.equal(commits, 2, "the second staging found everything there");
		const directory = join(work, "staged");
		const fetched = await ports.fetchStaged({ job, variants: variants.map(({ variant }) => variant), directory });
		assert.deepEqual(fetched, { ok: true });
		for (const { variant } of variants) {
			for (const file of variant.manifest.files) {
				const bytes = await readFile(join(directory, recipeDirectory(variant.recipe), file.path));
				assert.equal(createHash("sha256").update(bytes).digest("hex"), file.sha256);
			}
		}
		await ports.removeStaging({ job });
		await ports.removeStaging({ job });
		assert.equal(await repoState({ ...access(BOT), repo }), null);
		const gone = await ports.fetchStaged({ job, variants: variants.map(({ variant }) => variant), directory });
		assert.equal(gone.ok, false);
	});

	test("a staged file that somebody replaced is not even downloaded", async () => {
		const ports = createPublishPorts({
			publisher: access(BOT),
			reader: access(BOT),
			discussions: access(BOT),
			namespace: "bot",
			publicUrl: null,
		});
		const job = { id: "3f0d5a52-6b3a-4f5e-9f0e-1d2c3b4a5f61" };
		const variants = [
			{ variant: { recipe: "w4a16", manifest: await readTinyManifest("w4a16") }, directory: tinyDirectory("w4a16") },
		];
		await ports.stage({ job, variants, verificationPath: TINY_VERIFICATION });
		const repo = `bot/staging-${job.id}`;
		const state = await repoState({ ...access(BOT), repo });
		await commitFiles({
			...access(BOT),
			repo,
			parent: state?.sha ?? "",
			title: "tamper",
			files: [{ path: "w4a16/model.safetensors", from: "memory", content: "other" }],
		});
		const fetched = await ports.fetchStaged({
			job,
			variants: variants.map(({ variant }) => variant),
			directory: join(work, "tampered"),
		});
		assert.equal(fetched.ok ? "" : fetched.refusal.code, "verification-failed");
	});
});

describe("publishing", () => {
	test("makes a public repo in one commit, with card, plot, licence and manifests", async () => {
		const sha = await source("owner/first");
		const variants = [await variantOf("gguf:q4_0", "owner/first", sha)];
		const result = await assertOk(
			publish({
				hub: access(BOT),
				reader: access(BOT),
				targetRepo: "bot/first-YAQA-GGUF",
				job: { sourceRepo: "owner/first", sourceSha: sha },
				variants,
				siblings: [],
			}),
		);
		assert.equal(result.url, `${hub.url}/bot/first-YAQA-GGUF`);
		const files = (await listRepoFiles({ hubUrl: hub.url, repo: result.targetRepo, revision: "main" })).map(
			(file) => file.path,
		);
		for (const path of [
			"README.md",
			"LICENSE",
			"kl-by-size.png",
			"tiny-llama-Q4_0.gguf",
			"config.json",
			"manifests/gguf-q4-0.json",
		]) {
			assert.ok(files.includes(path), path);
		}
		const card = await textOf(result.targetRepo, "README.md");
		assert.match(card, /^---\nbase_model: owner\/first\nbase_model_relation: quantized\n/);
		assert.match(card, /\nlicense: apache-2\.0\n/);
		const info = await modelInfo({ hubUrl: hub.url, name: result.targetRepo, additionalFields: ["tags", "sha"] });
		assert.ok(info.tags?.includes("base_model:quantized:owner/first"), info.tags?.join());
		assert.equal(info.sha, result.targetSha);
	});

	test("a second variant joins the repo, the card tells of both, and the first one's files stay", async () => {
		const sha = await source("owner/second");
		const job = { sourceRepo: "owner/second", sourceSha: sha };
		const targetRepo = "bot/second-YAQA-GGUF";
		const first = await variantOf("gguf:q4_0", "owner/second", sha);
		await assertOk(
			publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [first], siblings: [] }),
		);
		const second = await variantOf("gguf:q4_0", "owner/second", sha, (manifest) => {
			manifest.recipe = "gguf:q8_0";
			for (const file of manifest.files) if (file.path.endsWith(".gguf")) file.path = "tiny-llama-Q8_0.gguf";
		});
		await cp(join(second.directory, "tiny-llama-Q4_0.gguf"), join(second.directory, "tiny-llama-Q8_0.gguf"));
		await assertOk(
			publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [second], siblings: [] }),
		);
		const published = await readPublishedManifests({ hubUrl: hub.url, repo: targetRepo, revision: "main" });
		assert.deepEqual(published.manifests.map(({ manifest }) => manifest.recipe).toSorted(), ["gguf:q4_0", "gguf:q8_0"]);
		const card = await textOf(targetRepo, "README.md");
		assert.match(card, /Fidelity of `gguf:q4_0`/);
		assert.match(card, /Fidelity of `gguf:q8_0`/);
		const files = new Set(published.files.map((file) => file.path));
		assert.ok(files.has("tiny-llama-Q4_0.gguf") && files.has("tiny-llama-Q8_0.gguf"));
	});

	test("a publication has a tag that never moves; what is added later gets the next one", async () => {
		const sha = await source("owner/tagged");
		const job = { sourceRepo: "owner/tagged", sourceSha: sha };
		const targetRepo = "bot/tagged-YAQA-GGUF";
		const tags = async () =>
			(await listRefs({ ...access(BOT), repo: targetRepo })).tags.map(({ name, targetCommit }) => [name, targetCommit]);
		const publishing = async (recipe: string, file: string) => {
			const variant = await variantOf("gguf:q4_0", "owner/tagged", sha, (manifest) => {
				manifest.recipe = recipe;
				for (const one of manifest.files) if (one.path.endsWith(".gguf")) one.path = file;
			});
			if (file !== "tiny-llama-Q4_0.gguf")
				await cp(join(variant.directory, "tiny-llama-Q4_0.gguf"), join(variant.directory, file));
			return () =>
				assertOk(
					publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [variant], siblings: [] }),
				);
		};
		const first = await publishing("gguf:q4_0", "tiny-llama-Q4_0.gguf");
		const one = await first();
		const tag = `source-${sha.slice(0, 12)}`;
		assert.deepEqual(await tags(), [[tag, one.targetSha]]);
		const second = await publishing("gguf:q8_0", "tiny-llama-Q8_0.gguf");
		const two = await second();
		assert.notEqual(two.targetSha, one.targetSha);
		await first();
		await second();
		assert.deepEqual(await tags(), [
			[tag, one.targetSha],
			[`${tag}-2`, two.targetSha],
		]);
		const at = async (revision: string) =>
			(await listRepoFiles({ hubUrl: hub.url, repo: targetRepo, revision })).map(({ path }) => path);
		assert.ok(!(await at(tag)).includes("tiny-llama-Q8_0.gguf"));
		assert.ok((await at(`${tag}-2`)).includes("tiny-llama-Q8_0.gguf"));
	});

	test("50 MB over a line of 1.5 MB a second arrive, and stand in the repo", async () => {
		const sha = await source("owner/slow-line");
		const weights = randomBytes(50_000_000);
		const sha256 = createHash("sha256").update(weights).digest("hex");
		const path = "tiny-llama-Q4_0.gguf";
		const variant = await variantOf("gguf:q4_0", "owner/slow-line", sha, (manifest) => {
			for (const file of manifest.files)
				if (file.path === path) Object.assign(file, { sha256, size: weights.byteLength });
		});
		await writeFile(join(variant.directory, path), weights);
		const targetRepo = "bot/slow-line-YAQA-GGUF";
		const job = { sourceRepo: "owner/slow-line", sourceSha: sha };
		const uploads: string[] = [];
		const counting: typeof fetch = (input, init) => {
			if (/\/(v1\/xorbs|lfs\/upload)\//.test(String(input))) uploads.push(new URL(String(input)).pathname);
			return fetch(input, init);
		};
		hub.faults.set({ uploadBytesPerSecond: 1_500_000 });
		try {
			await assertOk(
				publish({
					hub: access(BOT, counting),
					reader: access(BOT),
					targetRepo,
					job,
					variants: [variant],
					siblings: [],
				}),
			);
		} finally {
			hub.faults.set({ uploadBytesPerSecond: null });
		}
		// Over Xet, as the Hub wants it, and no piece of it twice.
		assert.ok(uploads.length > 0 && uploads.every((upload) => upload.includes("/v1/xorbs/")), uploads.join(" "));
		assert.equal(new Set(uploads).size, uploads.length);
		const entry = (await listRepoFiles({ hubUrl: hub.url, repo: targetRepo, revision: "main" })).find(
			(file) => file.path === path,
		);
		assert.equal(entry?.sha256, sha256);
	});

	test("a newer version of a variant replaces the older one's files", async () => {
		const sha = await source("owner/renewed");
		const job = { sourceRepo: "owner/renewed", sourceSha: sha };
		const targetRepo = "bot/renewed-YAQA-GGUF";
		const old = await variantOf("gguf:q4_0", "owner/renewed", sha);
		await assertOk(publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [old], siblings: [] }));
		const renewed = await variantOf("gguf:q4_0", "owner/renewed", sha, (manifest) => {
			for (const file of manifest.files) if (file.path.endsWith(".gguf")) file.path = "renewed-Q4_0.gguf";
		});
		await cp(join(renewed.directory, "tiny-llama-Q4_0.gguf"), join(renewed.directory, "renewed-Q4_0.gguf"));
		await assertOk(
			publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [renewed], siblings: [] }),
		);
		const files = (await listRepoFiles({ hubUrl: hub.url, repo: targetRepo, revision: "main" })).map(
			(file) => file.path,
		);
		assert.ok(files.includes("renewed-Q4_0.gguf"));
		assert.ok(!files.includes("tiny-llama-Q4_0.gguf"));
	});

	test("what a newer commit overtook goes to a repo of its own, and the newest one's files stay where they are", async () => {
		const first = await source("owner/overtaken");
		const next = await uploadFiles({
			...access(OWNER),
			repo: "owner/overtaken",
			files: [{ path: "notes.txt", content: new Blob(["Next."]) }],
		});
		const newest = next?.commit.oid ?? "";
		const targetRepo = "bot/overtaken-YAQA-GGUF";
		const publishOf = async (sha: string) =>
			await assertOk(
				publish({
					hub: access(BOT),
					reader: access(BOT),
					targetRepo,
					job: { sourceRepo: "owner/overtaken", sourceSha: sha },
					variants: [await variantOf("gguf:q4_0", "owner/overtaken", sha)],
					siblings: [],
				}),
			);
		const standing = await publishOf(newest);
		assert.equal(standing.targetRepo, targetRepo);
		for (let attempt = 0; attempt < 2; attempt++) {
			const late = await publishOf(first);
			assert.equal(late.targetRepo, `${targetRepo}-at-${first.slice(0, 12)}`);
			assert.match(await textOf(late.targetRepo, "README.md"), new RegExp(`of the commit \\[\`${first.slice(0, 8)}`));
		}
		assert.equal((await repoState({ ...access(BOT), repo: targetRepo }))?.sha, standing.targetSha);
	});

	test("ONNX variants share a repo: one config serves both, and each manifest stays true", async () => {
		const sha = await source("owner/shared");
		const job = { sourceRepo: "owner/shared", sourceSha: sha };
		const targetRepo = "bot/shared-YAQA-ONNX";
		const four = await variantOf("onnx:q4", "owner/shared", sha);
		await assertOk(publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [four], siblings: [] }));
		const eight = await variantOf("onnx:q4", "owner/shared", sha);
		const { manifest, directory } = eight;
		await cp(join(directory, "onnx/model_q4.onnx"), join(directory, "onnx/model_quantized.onnx"));
		const config = {
			...JSON.parse(await readFile(join(directory, "config.json"), "utf8")),
			"transformers.js_config": { dtype: "q8", use_external_data_format: { "model_quantized.onnx": 1 } },
		};
		const text = JSON.stringify(config);
		await writeFile(join(directory, "config.json"), text);
		manifest.recipe = "onnx:q8";
		for (const file of manifest.files) {
			if (file.path === "onnx/model_q4.onnx") file.path = "onnx/model_quantized.onnx";
			if (file.path !== "config.json") continue;
			file.size = text.length;
			file.sha256 = createHash("sha256").update(text).digest("hex");
		}
		await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
		await assertOk(
			publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [eight], siblings: [] }),
		);

		const merged = JSON.parse(await textOf(targetRepo, "config.json"));
		assert.deepEqual(merged["transformers.js_config"], { use_external_data_format: { "model_quantized.onnx": 1 } });
		const published = await readPublishedManifests({ hubUrl: hub.url, repo: targetRepo, revision: "main" });
		assert.equal(published.manifests.length, 2);
		for (const entry of published.manifests) {
			for (const file of entry.manifest.files) {
				const listed = entry.files.find(({ path }) => path === file.path)?.listed;
				const response = await fetch(`${hub.url}/${targetRepo}/resolve/main/${listed?.path}`);
				const bytes = Buffer.from(await response.arrayBuffer());
				assert.equal(createHash("sha256").update(bytes).digest("hex"), file.sha256, `${entry.path} ${file.path}`);
			}
		}
	});

	test("a private source gives a private repo, and follows when it is opened", async () => {
		const sha = await source("bot/secret", "private").catch(async () => {
			await createRepo({ ...access(BOT), repo: "bot/secret", visibility: "private" });
			const done = await uploadFiles({ ...access(BOT), repo: "bot/secret", files: [pathToFileURL(`${TINY_SOURCE}/`)] });
			return done?.commit.oid ?? "";
		});
		const variants = [await variantOf("w4a16", "bot/secret", sha)];
		const request = {
			hub: access(BOT),
			reader: access(BOT),
			targetRepo: "bot/secret-YAQA-W4A16",
			job: { sourceRepo: "bot/secret", sourceSha: sha },
			variants,
			siblings: [],
		};
		await assertOk(publish(request));
		assert.equal((await fetch(`${hub.url}/api/models/bot/secret-YAQA-W4A16`)).status, 401);
		await updateRepoSettings({ ...access(BOT), repo: "bot/secret", settings: { visibility: "public" } });
		await assertOk(publish(request));
		assert.equal((await fetch(`${hub.url}/api/models/bot/secret-YAQA-W4A16`)).status, 200);
	});

	test("a source that became private is followed before anything is put there, or nothing is put there", async () => {
		const sha = await source("owner/closing");
		const targetRepo = "bot/closing-YAQA-GGUF";
		const job = { sourceRepo: "owner/closing", sourceSha: sha };
		const request = { reader: access(OWNER), targetRepo, job, siblings: [] };
		const first = [await variantOf("gguf:q4_0", "owner/closing", sha)];
		await assertOk(publish({ ...request, hub: access(BOT), variants: first }));
		const before = await repoState({ ...access(BOT), repo: targetRepo });
		await updateRepoSettings({ ...access(OWNER), repo: "owner/closing", settings: { visibility: "private" } });
		const renewed = [
			await variantOf("gguf:q4_0", "owner/closing", sha, (manifest) => {
				manifest.versions["tests"] = "another";
			}),
		];
		const calls: string[] = [];
		const watched =
			(settingsWork: boolean): typeof fetch =>
			async (input, init) => {
				const { pathname } = new URL(String(input));
				if (pathname.endsWith("/settings")) {
					calls.push("settings");
					if (!settingsWork) return new Response("{}", { status: 403 });
				}
				if (pathname.includes("/commit/")) calls.push("commit");
				return await fetch(input, init);
			};
		await assert.rejects(publish({ ...request, hub: access(BOT, watched(false)), variants: renewed }));
		assert.deepEqual(calls, ["settings"], "nothing was put where everybody sees it");
		assert.equal((await repoState({ ...access(BOT), repo: targetRepo }))?.sha, before?.sha);
		calls.length = 0;
		await assertOk(publish({ ...request, hub: access(BOT, watched(true)), variants: renewed }));
		assert.deepEqual(calls.slice(0, 2), ["settings", "commit"]);
		assert.equal((await fetch(`${hub.url}/api/models/${targetRepo}`)).status, 401);
	});

	test("what is published follows its source both ways, and what an operator closed stays closed", async () => {
		const sha = await source("owner/followed");
		const published: string[] = [];
		for (const recipe of ["gguf:q4_0", "w4a16"] as const) {
			const targetRepo = `bot/followed-${recipe.slice(0, 4).replace(":", "")}`;
			const variants = [await variantOf(recipe, "owner/followed", sha)];
			const job = { sourceRepo: "owner/followed", sourceSha: sha };
			await assertOk(publish({ hub: access(BOT), reader: access(OWNER), targetRepo, job, variants, siblings: [] }));
			published.push(targetRepo);
		}
		const [open = "", closed = ""] = published;
		await updateRepoSettings({ ...access(BOT), repo: closed, settings: { visibility: "private" } });
		let repos = published.map((repo) => ({ repo, tightened: false }));
		const follow = async (settings: {
			readonly visibility?: "public" | "private";
			readonly gated?: false | "manual";
		}) => {
			await updateRepoSettings({ ...access(OWNER), repo: "owner/followed", settings });
			const request = { hub: access(BOT), reader: access(OWNER), sourceRepo: "owner/followed", bases: [], repos };
			repos = [...(await followVisibility(request)).repos];
			return await Promise.all(
				published.map(async (repo) => {
					const state = await repoSettings({ ...access(BOT), repo });
					return `${state?.private === true ? "private" : "public"} ${state?.gated}`;
				}),
			);
		};
		assert.deepEqual(await follow({}), ["public false", "private false"]);
		assert.deepEqual(await follow({ gated: "manual" }), ["public manual", "private manual"]);
		assert.deepEqual(await follow({ visibility: "private" }), ["private manual", "private manual"]);
		assert.equal(repos.find(({ repo }) => repo === open)?.tightened, true);
		await updateRepoSettings({ ...access(BOT), repo: closed, settings: { gated: false } });
		repos = [{ repo: open, tightened: true }];
		assert.deepEqual((await follow({ visibility: "public", gated: false }))[0], "public false");
		await deleteRepo({ ...access(OWNER), repo: "owner/followed" });
		const gone = await followVisibility({
			hub: access(BOT),
			reader: access(OWNER),
			sourceRepo: "owner/followed",
			bases: [],
			repos,
		});
		assert.equal(gone.private, true);
		assert.equal((await repoSettings({ ...access(BOT), repo: open }))?.private, true, "gone is as private as can be");
	});

	test("a renamed source keeps its repos: the card says the new name, and more is published beside", async () => {
		const sha = await source("owner/first-name");
		const targetRepo = "bot/first-name-YAQA-GGUF";
		const target = { hub: access(BOT), reader: access(OWNER), targetRepo, siblings: [] };
		const job = { sourceRepo: "owner/first-name", sourceSha: sha };
		await assertOk(publish({ ...target, job, variants: [await variantOf("gguf:q4_0", "owner/first-name", sha)] }));
		const moved = await fetch(`${hub.url}/api/repos/move`, {
			method: "POST",
			headers: { authorization: `Bearer ${OWNER}`, "content-type": "application/json" },
			body: JSON.stringify({ fromRepo: "owner/first-name", toRepo: "owner/second-name" }),
		});
		assert.equal(moved.status, 200);
		const { hub: bot, reader } = target;
		const seen = await followVisibility({ hub: bot, reader, sourceRepo: "owner/first-name", bases: [], repos: [] });
		assert.deepEqual([seen.name, seen.private], ["owner/second-name", false]);
		await refreshCard({ ...target, sourceRepo: "owner/second-name", newestSha: sha });
		assert.match(await textOf(targetRepo, "README.md"), /^base_model: owner\/second-name$/m);
		const renamed = { sourceRepo: "owner/second-name", sourceSha: sha };
		await assertOk(
			publish({ ...target, job: renamed, variants: [await variantOf("gguf:q4_0", renamed.sourceRepo, sha)] }),
		);
		await source("owner/other-name");
		const other = { sourceRepo: "owner/other-name", sourceSha: sha };
		const refused = await publish({
			...target,
			job: other,
			variants: [await variantOf("gguf:q4_0", other.sourceRepo, sha)],
		});
		assert.equal(refused.ok ? null : refused.refusal.code, "target-taken");
	});

	test("gating is inherited", async () => {
		const sha = await source("owner/gated");
		await updateRepoSettings({ ...access(OWNER), repo: "owner/gated", settings: { gated: "auto" } });
		const variants = [await variantOf("w4a16", "owner/gated", sha)];
		// The reader is the owner here: the bot was granted access.
		await assertOk(
			publish({
				hub: access(BOT),
				reader: access(OWNER),
				targetRepo: "bot/gated-YAQA-W4A16",
				job: { sourceRepo: "owner/gated", sourceSha: sha },
				variants,
				siblings: [],
			}),
		);
		const info = await modelInfo({ ...access(BOT), name: "bot/gated-YAQA-W4A16" });
		assert.equal(info.gated, "auto");
	});

	test("a repo that somebody else filled, or that holds another model, is refused and stays as it is", async () => {
		const sha = await source("owner/third");
		const variants = [await variantOf("w4a16", "owner/third", sha)];
		await createRepo({ ...access(BOT), repo: "bot/third-YAQA-W4A16", visibility: "public" });
		await uploadFiles({
			...access(BOT),
			repo: "bot/third-YAQA-W4A16",
			files: [{ path: "mine.txt", content: new Blob(["mine"]) }],
		});
		const request = {
			hub: access(BOT),
			reader: access(BOT),
			job: { sourceRepo: "owner/third", sourceSha: sha },
			variants,
			siblings: [],
		};
		const beforehand = await repoState({ ...access(BOT), repo: "bot/third-YAQA-W4A16" });
		const foreign = await publish({ ...request, targetRepo: "bot/third-YAQA-W4A16" });
		assert.equal(foreign.ok ? "" : foreign.refusal.code, "target-taken");
		assert.deepEqual(await repoState({ ...access(BOT), repo: "bot/third-YAQA-W4A16" }), beforehand);
		const other = await publish({ ...request, targetRepo: "bot/first-YAQA-GGUF" });
		assert.equal(other.ok ? "" : other.refusal.code, "target-taken");
	});

	test("a namespace that the token may not write to is a permanent refusal", async () => {
		const sha = await source("owner/fourth");
		const variants = [await variantOf("w4a16", "owner/fourth", sha)];
		await assert.rejects(
			publish({
				hub: access(BOT),
				reader: access(BOT),
				targetRepo: "owner/fourth-YAQA-W4A16",
				job: { sourceRepo: "owner/fourth", sourceSha: sha },
				variants,
				siblings: [],
			}),
			(error: Error) => error.name === "PermanentError" && /may not create/.test(error.message),
		);
	});
});

describe("a bot that is killed while it publishes", () => {
	class Killed extends Error {}

	/** Every request before or after the `nth` fails: as a process that died there. */
	function dyingFetch(nth: number, when: "before" | "after") {
		let count = 0;
		const wrapped: typeof fetch = async (input, init) => {
			count++;
			if (count > nth || (count === nth && when === "before")) throw new Killed("killed");
			const response = await fetch(input, init);
			if (count === nth) {
				await response.arrayBuffer();
				throw new Killed("killed");
			}
			return response;
		};
		return { fetch: wrapped, count: () => count };
	}

	for (const when of ["before", "after"] as const) {
		test(`finishes with one commit and no half state, dying ${when} any request`, async () => {
			const sha = await source("owner/killed");
			const variants = [await variantOf("w4a16", "owner/killed", sha)];
			let completed = false;
			let nth = 0;
			while (!completed) {
				nth++;
				const targetRepo = `bot/killed-${when}-${nth}`;
				const request = {
					reader: access(BOT),
					targetRepo,
					job: { sourceRepo: "owner/killed", sourceSha: sha },
					variants,
					siblings: [],
				};
				const dying = dyingFetch(nth, when);
				try {
					const hubUrl = hub.url;
					const once = createHubFetch({ hubUrl, fetch: dying.fetch, attempts: 1 });
					const outcome = await publish({ ...request, hub: { hubUrl, accessToken: BOT, fetch: once } });
					completed = outcome.ok && dying.count() < nth;
				} catch (error) {
					assert.ok(error instanceof Error);
				}
				// What a reader sees of the dead attempt: nothing, or everything.
				const seen = await fetch(`${hub.url}/api/models/${targetRepo}`);
				if (seen.status === 200) {
					const published = await readPublishedManifests({ hubUrl: hub.url, repo: targetRepo, revision: "main" });
					assert.equal(published.manifests.length, 1);
					const present = new Set(published.files.map((file) => file.path));
					for (const file of variants[0]?.manifest.files ?? []) assert.ok(present.has(file.path));
				}
				await assertOk(publish({ ...request, hub: access(BOT) }));
				assert.equal((await fetch(`${hub.url}/api/models/${targetRepo}`)).status, 200);
				const titles: string[] = [];
				for await (const commit of listCommits({ ...access(BOT), repo: targetRepo })) titles.push(commit.title);
				assert.equal(
					titles.filter((title) => title.startsWith("Publish")).length,
					1,
					`${nth} ${when}: ${titles.join()}`,
				);
			}
			assert.ok(nth > 10, `publishing takes more than ten requests (${nth})`);
		});
	}
});

describe("the status discussion", () => {
	const ports = () =>
		createPublishPorts({
			publisher: access(BOT),
			reader: access(BOT),
			discussions: access(BOT),
			namespace: "bot",
			publicUrl: "http://bot.example",
		});

	test("is opened once and edited afterwards, also when its number was forgotten", async () => {
		const sha = await source("owner/told");
		const status = {
			sourceRepo: "owner/told",
			discussion: null,
			jobs: [
				{ id: JOB, sourceSha: sha, state: "running" as const, statusText: "rounding <b>@stranger</b>", refusal: null },
			],
			variants: [],
			refused: null,
		};
		// Somebody else took the title first.
		await fetch(`${hub.url}/api/models/owner/told/discussions`, {
			method: "POST",
			headers: { authorization: `Bearer ${OWNER}`, "content-type": "application/json" },
			body: JSON.stringify({ title: "Quantization status", description: "mine" }),
		});
		const first = await ports().announce(status);
		assert.notEqual(first.discussion, null);
		assert.notEqual(first.discussion, 1);
		const manifest = await readTinyManifest("w4a16");
		const done = {
			...status,
			jobs: [],
			variants: [
				{
					recipe: "w4a16",
					sourceSha: sha,
					jobId: JOB,
					state: "published" as const,
					targetRepo: "bot/told-YAQA-W4A16",
					manifest,
					refusal: null,
				},
			],
		};
		assert.deepEqual(await ports().announce(done), first);
		let edits = 0;
		let accountsAsked = 0;
		const counting = access(BOT, (input, init) => {
			if (String(input).endsWith("/edit")) edits++;
			if (String(input).endsWith("/api/whoami-v2")) accountsAsked++;
			return fetch(input, init);
		});
		const unchanged = createPublishPorts({
			publisher: counting,
			reader: counting,
			discussions: counting,
			namespace: "bot",
			publicUrl: "http://bot.example",
		});
		assert.deepEqual(await unchanged.announce({ ...done, discussion: first.discussion }), first);
		assert.deepEqual(await unchanged.announce({ ...done, discussion: first.discussion }), first);
		assert.equal(edits, 0, "an unchanged state is not written again");
		assert.equal(accountsAsked, 1, "whose account it is does not change");
		const discussion = await getDiscussion({ ...access(BOT), repo: "owner/told", num: first.discussion ?? 0 });
		const comments = commentsOf(discussion);
		assert.equal(comments.length, 1);
		const raw = comments[0]?.data.latest.raw ?? "";
		assert.match(raw, /\[bot\/told-YAQA-W4A16\]/);
		assert.doesNotMatch(raw, /@stranger/);
		assert.match(raw, /<!-- \{"yaqaBot":1,.*\} -->$/);
	});

	test("closed discussions are no failure", async () => {
		await source("owner/quiet");
		await fetch(`${hub.url}/api/models/owner/quiet/settings`, {
			method: "PUT",
			headers: { authorization: `Bearer ${OWNER}`, "content-type": "application/json" },
			body: JSON.stringify({ discussionsDisabled: true }),
		});
		const answer = await ports().announce({
			sourceRepo: "owner/quiet",
			discussion: null,
			jobs: [],
			variants: [],
			refused: null,
		});
		assert.deepEqual(answer, { discussion: null });
	});
});

test("recipes of one model go to repos of different names", () => {
	const ports = createPublishPorts({
		publisher: access(BOT),
		reader: access(BOT),
		discussions: access(BOT),
		namespace: "bot",
		publicUrl: null,
	});
	assert.equal(
		ports.nameTarget({ sourceRepo: "owner/first", recipe: recipeOf("gguf:q4_0"), commit: null }),
		"bot/first-YAQA-GGUF",
	);
});

describe("a newer commit with the same weights", () => {
	const ports = () =>
		createPublishPorts({
			publisher: access(BOT),
			reader: access(BOT),
			discussions: access(BOT),
			namespace: "bot",
			publicUrl: null,
		});

	test("brings tokenizer, manifest and card, leaves the weights where they are, and is done once", async () => {
		const first = await source("owner/carried");
		const jobs = { sourceRepo: "owner/carried", sourceSha: first };
		const files = await variantOf("w4a16", "owner/carried", first);
		const inside = await variantOf("gguf:q4_0", "owner/carried", first);
		const other = await variantOf("gguf:q4_k_m", "owner/carried", first);
		const publishing = (targetRepo: string, variants: { manifest: Manifest; directory: string }[]) =>
			assertOk(publish({ hub: access(BOT), reader: access(BOT), targetRepo, job: jobs, variants, siblings: [] }));
		await publishing("bot/carried-YAQA-W4A16", [files]);
		await publishing("bot/carried-YAQA-GGUF", [inside, other]);

		const changed = JSON.stringify({ ...JSON.parse(await textOf("owner/carried", "tokenizer_config.json")), x: 1 });
		const done = await uploadFiles({
			...access(OWNER),
			repo: { type: "model", name: "owner/carried" },
			files: [
				{ path: "tokenizer_config.json", content: new Blob([changed]) },
				{ path: "chat_template.jinja", content: new Blob(["{{ messages }}"]) },
			],
		});
		const second = done?.commit.oid ?? "";
		const request = {
			job: { sourceRepo: "owner/carried", sourceSha: second },
			targetRepo: "bot/carried-YAQA-W4A16",
			variants: [{ variant: { id: JOB, recipe: "w4a16" }, origin: { sourceSha: first } }],
			siblings: [],
		};
		const before = await listRepoFiles({ ...access(BOT), repo: request.targetRepo, revision: "main" });
		const outcome = await ports().republish(request);
		assert.ok(outcome.kind === "published", JSON.stringify(outcome));
		const weights = (listed: typeof before) => listed.filter((file) => file.path.endsWith(".safetensors"));
		const after = await listRepoFiles({ ...access(BOT), repo: request.targetRepo, revision: "main" });
		assert.deepEqual(weights(after), weights(before));
		assert.ok(weights(after).length > 0);
		assert.equal(await textOf(request.targetRepo, "tokenizer_config.json"), changed);
		assert.equal(await textOf(request.targetRepo, "chat_template.jinja"), "{{ messages }}");
		const manifest = outcome.manifests.get(JOB);
		assert.deepEqual(
			[manifest?.source.revision, manifest?.source.measuredRevision, manifest?.job],
			[second, first, files.manifest.job],
		);
		const card = await textOf(request.targetRepo, "README.md");
		assert.match(card, new RegExp(`at \`${second}\``));
		assert.match(card, /weights are those of commit/);
		assert.doesNotMatch(card, /of an older commit/);

		const again = await ports().republish(request);
		assert.ok(
			again.kind === "published" && again.targetSha === outcome.targetSha,
			"a second call finds the first one's commit",
		);
		const gguf = { ...request, targetRepo: "bot/carried-YAQA-GGUF" };
		const variants = [{ variant: { id: JOB, recipe: "gguf:q4_0" }, origin: { sourceSha: first } }];
		assert.equal((await ports().republish({ ...gguf, variants })).kind, "published");
		const mixed = await textOf("bot/carried-YAQA-GGUF", "README.md");
		assert.match(mixed, /`gguf:q4_k_m` is \*\*of an older commit\*\*/);
		assert.doesNotMatch(mixed, /`gguf:q4_0`, of an older commit/);
		await assert.rejects(textOf("bot/carried-YAQA-GGUF", "chat_template.jinja"), "a GGUF file has its own inside");
	});

	/** A published variant of a source, and the request that takes it over for the source's next commit. */
	async function published(name: string) {
		const first = await source(`owner/${name}`);
		const targetRepo = `bot/${name}-YAQA-W4A16`;
		const variant = await variantOf("w4a16", `owner/${name}`, first);
		const hubs = { hub: access(BOT), reader: access(BOT) };
		const job = { sourceRepo: `owner/${name}`, sourceSha: first };
		await assertOk(publish({ ...hubs, targetRepo, job, variants: [variant], siblings: [] }));
		const second = await commitFiles({
			...access(OWNER),
			repo: `owner/${name}`,
			parent: first,
			title: "A template",
			files: [{ path: "chat_template.jinja", from: "memory", content: "{{ messages }}" }],
		});
		return {
			job: { sourceRepo: `owner/${name}`, sourceSha: second },
			targetRepo,
			variants: [{ variant: { id: JOB, recipe: "w4a16" }, origin: { sourceSha: first } }],
			siblings: [],
		};
	}
	const remove = (name: string, token: string) => deleteRepo({ ...access(token), repo: { type: "model", name } });

	test("a repo that is gone, or no longer holds the files, is told as vanished; a source that is gone is a refusal", async () => {
		const request = await published("vanishing");
		const { targetRepo } = request;
		const nowhere = await ports().republish({ ...request, targetRepo: "bot/nowhere-YAQA-W4A16" });
		assert.deepEqual(nowhere, { kind: "vanished", reason: "bot/nowhere-YAQA-W4A16 was no longer there." });

		const state = await repoState({ ...access(BOT), repo: targetRepo });
		await commitFiles({
			...access(BOT),
			repo: targetRepo,
			parent: state?.sha ?? "",
			title: "Take the weights away",
			files: [],
			deleted: ["model.safetensors"],
		});
		const emptied = await ports().republish(request);
		assert.ok(emptied.kind === "vanished" && /no longer held w4a16 of commit/.test(emptied.reason));

		await remove("owner/vanishing", OWNER);
		const sourceless = await ports().republish(request);
		assert.ok(sourceless.kind === "refused" && /owner\/vanishing is gone/.test(sourceless.refusal.message));
	});

	test("a repo that vanishes just before the commit is not made anew without its weights", async () => {
		const request = await published("racing");
		let isDeleted = false;
		const deleting: typeof fetch = async (input, init) => {
			if (!isDeleted && String(input).includes(`${request.targetRepo}/commit/`)) {
				isDeleted = true;
				await remove(request.targetRepo, BOT);
			}
			return fetch(input, init);
		};
		const racing = createPublishPorts({
			publisher: access(BOT, deleting),
			reader: access(BOT),
			discussions: access(BOT),
			namespace: "bot",
			publicUrl: null,
		});
		await assert.rejects(racing.republish(request));
		assert.ok(isDeleted);
		assert.equal(await repoState({ ...access(BOT), repo: request.targetRepo }), null);
		assert.equal((await racing.republish(request)).kind, "vanished", "the next try says so");
	});

	test("a token that the Hub does not accept is no sign that a repo is gone", async () => {
		const request = await published("unseen");
		const locked = createPublishPorts({
			publisher: access("hf_expired"),
			reader: access(BOT),
			discussions: access(BOT),
			namespace: "bot",
			publicUrl: null,
		});
		await assert.rejects(locked.republish(request), /does not accept the token/);
	});

	test("marks the card of what stays behind, once", async () => {
		const first = await source("owner/behind");
		const job = { sourceRepo: "owner/behind", sourceSha: first };
		const variant = await variantOf("w4a16", "owner/behind", first);
		const targetRepo = "bot/behind-YAQA-W4A16";
		await assertOk(
			publish({ hub: access(BOT), reader: access(BOT), targetRepo, job, variants: [variant], siblings: [] }),
		);
		const newestSha = "f".repeat(40);
		const refresh = () => ports().refreshCard({ targetRepo, sourceRepo: "owner/behind", newestSha, siblings: [] });
		await refresh();
		assert.match(await textOf(targetRepo, "README.md"), /These files are \*\*of an older commit\*\*/);
		const marked = await repoState({ ...access(BOT), repo: targetRepo });
		await refresh();
		assert.deepEqual(await repoState({ ...access(BOT), repo: targetRepo }), marked);
	});
});
