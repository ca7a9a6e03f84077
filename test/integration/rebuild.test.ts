import assert from "node:assert/strict";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { commit, uploadFiles } from "@huggingface/hub";
import { systemClock } from "../../src/clock.ts";
import { listJobs } from "../../src/db/jobs.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { listPublishedVariants } from "../../src/db/variants.ts";
import { isShown } from "../../src/db/visibility.ts";
import { recordRequest } from "../../src/jobs/record-request.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { silentLog } from "../../src/log.ts";
import { manifestSigner } from "../../src/publish/manifest-signature.ts";
import { publish } from "../../src/publish/publish.ts";
import { inspectSource } from "../../src/verify/inspect-source.ts";
import { runBot } from "../support/run-bot.ts";
import { scriptedConfiguration, scriptedRunner, worldFolder } from "../support/scripted-bot.ts";
import { scriptedPorts, scriptedWorld } from "../support/scripted-ports.ts";
import { pushTinySource, readTinyManifest, type TinyRecipe, tinyDirectory } from "../support/tiny-variants.ts";

const OWNER = "hf_owner_token";
const BOT = "hf_bot_token";
const LIMITS = { maximumWeightBytes: 1e9 };

const KEYS = generateKeyPairSync("ed25519", {
	privateKeyEncoding: { format: "pem", type: "pkcs8" },
	publicKeyEncoding: { format: "pem", type: "spki" },
});

let hub: LocalHub;
let work: string;
let head = "";
const published: string[] = [];

const access = (accessToken: string) => ({ hubUrl: hub.url, accessToken });

async function publishOne(recipe: TinyRecipe, sourceRepo: string, sourceSha: string, targetRepo: string) {
	const directory = await mkdtemp(join(work, "variant-"));
	await cp(tinyDirectory(recipe), directory, { recursive: true });
	const manifest = await readTinyManifest(recipe);
	manifest.source = { repo: sourceRepo, revision: sourceSha, license: "apache-2.0" };
	await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
	const result = await publish({
		hub: access(BOT),
		reader: access(BOT),
		targetRepo,
		job: { sourceRepo, sourceSha },
		variants: [{ manifest, directory }],
		siblings: [],
		sign: manifestSigner(KEYS.privateKey),
	});
	assert.ok(result.ok, result.ok ? "" : result.refusal.message);
	published.push(`${sourceRepo} ${sourceSha.slice(0, 8)} ${recipe} ${targetRepo} ${result.targetSha}`);
}

const sourceRepo = (repo: string, visibility: "public" | "private"): Promise<string> =>
	pushTinySource(access(OWNER), repo, visibility);

const program = (args: readonly string[], dataDirectory: string) =>
	runBot(args, {
		YAQA_BOT_HUB_TOKEN: BOT,
		YAQA_BOT_HUB_URL: hub.url,
		YAQA_BOT_NAMESPACE: "bot",
		YAQA_BOT_DATA_DIR: dataDirectory,
	});

before(async () => {
	work = await mkdtemp(join(tmpdir(), "yaqa-rebuild-"));
	hub = await startLocalHub({
		dataDirectory: join(work, "hub"),
		users: [
			{ name: "owner", token: OWNER, orgs: [{ name: "lab", role: "admin" }] },
			{ name: "bot", token: BOT, orgs: [{ name: "lab", role: "write" }] },
		],
	});
	const first = await sourceRepo("owner/model", "public");
	await publishOne("w4a16", "owner/model", first, `bot/model-YAQA-W4A16-at-${first.slice(0, 12)}`);
	const done = await uploadFiles({
		...access(OWNER),
		repo: { type: "model", name: "owner/model" },
		files: [{ path: "LICENSE", content: new Blob(["other terms"]) }],
	});
	head = done?.commit.oid ?? "";
	await publishOne("w4a16", "owner/model", head, "bot/model-YAQA-W4A16");
	await publishOne("onnx:q4", "owner/model", head, "bot/model-YAQA-ONNX");
	const secret = await sourceRepo("lab/secret", "private");
	await publishOne("w4a16", "lab/secret", secret, "bot/secret-YAQA-W4A16");
});
after(async () => {
	await hub.close();
	await rm(work, { recursive: true, force: true });
});

test("the database comes back from the Hub: what is published is known, and a push of it starts nothing", async () => {
	const dataDirectory = join(work, "rebuilt");
	const rebuilt = await program(["rebuild", "--json"], dataDirectory);
	assert.equal(rebuilt.code, 0, rebuilt.err);
	assert.deepEqual(JSON.parse(rebuilt.out), { ok: true, rows: { repos: 4, variants: 4, lost: 0, left: 0 } });
	const again = await program(["rebuild"], dataDirectory);
	assert.match(again.err, /in use already/);
	const database = await openDatabase({
		dataDirectory,
		databaseUrl: null,
		poolSize: 2,
		clock: systemClock,
		log: silentLog,
	});
	try {
		const { items } = await listPublishedVariants(database.handle);
		assert.deepEqual(
			items
				.map((one) => `${one.sourceRepo} ${one.sourceSha.slice(0, 8)} ${one.recipe} ${one.targetRepo} ${one.targetSha}`)
				.toSorted(),
			published.toSorted(),
		);
		assert.equal(await isShown(database.handle, "lab/secret", "everybody"), false);
		assert.equal(await isShown(database.handle, "owner/model", "everybody"), true);
		const jobs = (await listJobs(database.handle)).items.length;
		assert.equal(jobs, 3, "one a commit");
		const configuration = scriptedConfiguration(dataDirectory, {
			watch: { namespaces: ["owner"], recipes: ["w4a16", "onnx:q4"] },
		});
		const outcome = await recordRequest(
			{
				database,
				clock: systemClock,
				log: silentLog,
				configuration,
				ports: {
					...scriptedPorts(scriptedWorld(worldFolder(dataDirectory))),
					inspectSource: (request) => inspectSource({ ...access(BOT), ...request, limits: LIMITS }),
					nameTarget: ({ recipe }) => `bot/model-YAQA-${recipe.canonical === "w4a16" ? "W4A16" : "ONNX"}`,
				},
				runner: scriptedRunner(configuration),
				newId: randomUUID,
				owner: "the test",
				wake: async () => undefined,
			},
			{
				kind: "push",
				sourceRepo: "owner/model",
				recipes: [],
				requester: null,
				replyTo: null,
				dedupeKey: "after the rebuild",
			},
		);
		assert.equal(outcome.kind, "published", JSON.stringify(outcome).slice(0, 400));
		assert.equal((await listJobs(database.handle)).items.length, jobs);
	} finally {
		await database.close();
	}
});

test("verify with the operator's public key tells signed manifests from those of anybody else", async () => {
	const own = join(work, "public.pem");
	const other = join(work, "other.pem");
	await writeFile(own, KEYS.publicKey);
	await writeFile(other, generateKeyPairSync("ed25519").publicKey.export({ format: "pem", type: "spki" }));
	const dataDirectory = join(work, "keys");
	const repo = "bot/model-YAQA-W4A16";
	const signed = await program(["verify", repo, "--key", own], dataDirectory);
	assert.equal(signed.code, 0, signed.err);
	assert.match(signed.err, /signature: w4a16 is signed by this key/);
	const foreign = await program(["verify", repo, "--key", other], dataDirectory);
	assert.deepEqual([foreign.code, /signed by another key/.test(foreign.err)], [4, true], foreign.err);
	assert.equal((await program(["verify", repo, "--key", join(work, "none.pem")], dataDirectory)).code, 2);

	// Somebody who may write to the repo changes a figure, and what the files are checked against.
	const path = "manifests/w4a16.json";
	const text = await (await fetch(`${hub.url}/${repo}/resolve/main/${path}`)).text();
	const better = text.replace(/"job":\s*"[^"]*"/, '"job":"somebody-elses"');
	assert.notEqual(better, text);
	const files = (content: string) => [{ path, content: new Blob([content]) }];
	await uploadFiles({ ...access(BOT), repo: { type: "model", name: repo }, files: files(better) });
	const changed = await program(["verify", repo, "--key", own], dataDirectory);
	assert.deepEqual([changed.code, /is not of this manifest/.test(changed.err)], [4, true], changed.err);
	assert.equal((await program(["verify", repo], dataDirectory)).code, 0, "which nobody sees without the key");
	await uploadFiles({ ...access(BOT), repo: { type: "model", name: repo }, files: files(text) });
});

test("verify --all tells of every repo in a namespace, and of one whose file or manifest was changed", async () => {
	const dataDirectory = join(work, "verify");
	const sound = await program(["verify", "--all", "bot", "--json"], dataDirectory);
	assert.equal(sound.code, 0, sound.err);
	assert.equal(JSON.parse(sound.out).repos.length, 4);
	const repo = { type: "model", name: "bot/model-YAQA-W4A16" } as const;
	await uploadFiles({ ...access(BOT), repo, files: [{ path: "config.json", content: new Blob(["{}"]) }] });
	await commit({
		...access(BOT),
		repo: { type: "model", name: "bot/model-YAQA-ONNX" },
		title: "Take the manifest away",
		operations: [{ operation: "delete", path: "manifests/onnx-q4.json" }],
	});
	const changed = await program(["verify", "--all", "bot", "--json"], dataDirectory);
	assert.equal(changed.code, 4, changed.err);
	const bad = (JSON.parse(changed.out).repos as { repo: string; ok: boolean }[]).filter((one) => !one.ok);
	assert.deepEqual(bad.map((one) => one.repo).toSorted(), ["bot/model-YAQA-ONNX", "bot/model-YAQA-W4A16"]);
	assert.equal((await program(["verify"], dataDirectory)).code, 2);
});
