import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { createRepo, datasetInfo } from "@huggingface/hub";
import { parse } from "yaml";
import { systemClock } from "../../src/clock.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { findSketch } from "../../src/db/sketches.ts";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { listRepoFiles } from "../../src/hub/list-repo-files.ts";
import type { SketchStore } from "../../src/jobs/ports.ts";
import { sketchFingerprint } from "../../src/jobs/sketch-fingerprint.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { silentLog } from "../../src/log.ts";
import type { JobSpec } from "../../src/protocol/job-spec.ts";
import { parseRecipe } from "../../src/protocol/recipe.ts";
import { createSketchStore } from "../../src/publish/sketch-store.ts";
import type { Runner } from "../../src/runners/runner.ts";
import { engineWithRequests } from "../support/engine-with-requests.ts";

import { scriptedConfiguration, scriptedRunner, until, untilState, worldFolder } from "../support/scripted-bot.ts";
import { scriptedPorts, scriptedWorld, shaOf } from "../support/scripted-ports.ts";

const BOT = "hf_sketch_bot_write";
const READER = "hf_sketch_bot_read";
const STRANGER = "hf_sketch_stranger";
const REPO = "bot/sketches";

const sha256 = (bytes: string | Buffer): string => createHash("sha256").update(bytes).digest("hex");

describe("the sketch store", () => {
	let hub: LocalHub;
	let folder: string;
	before(async () => {
		folder = await mkdtemp(join(tmpdir(), "yaqa-sketches-"));
		hub = await startLocalHub({
			dataDirectory: join(folder, "hub"),
			users: [
				{ name: "bot", token: BOT, moreTokens: [{ token: READER, role: "read" }] },
				{ name: "stranger", token: STRANGER },
			],
		});
	});
	after(async () => {
		await hub.close();
		await rm(folder, { recursive: true, force: true });
	});

	const access = (accessToken: string) => ({
		hubUrl: hub.url,
		accessToken,
		fetch: createHubFetch({ hubUrl: hub.url }),
	});
	const storeOf = (repo = REPO, visibility: "private" | "public" = "private", reader = READER): SketchStore =>
		createSketchStore({ writer: access(BOT), reader: access(reader), repo, visibility });

	async function writeSketch(name: string, text: string): Promise<{ directory: string; key: string }> {
		const directory = join(folder, name);
		await mkdir(directory, { recursive: true });
		const key = sha256(text);
		const calibration = { sha256: sha256("tokens"), sequences: 8, length: 32 };
		const files = { "block-0.safetensors": { size: Buffer.byteLength(text), sha256: sha256(text) } };
		await writeFile(join(directory, "block-0.safetensors"), text);
		const record = { sketch: 1, key, kind: "a", iterations: 2, calibration, files };
		await writeFile(join(directory, "sketch.json"), JSON.stringify(record));
		return { directory, key };
	}
	const identityOf = (repo: string) => ({ repo, sha: shaOf(repo), fingerprint: "f".repeat(32) });

	test("a sketch is kept once, found by its source and settings, and comes back byte for byte", async () => {
		const store = storeOf();
		const identity = identityOf("acme/one");
		assert.equal(await store.find(identity), null);
		const { directory, key } = await writeSketch("one", "factors of one");
		await writeFile(join(directory, "leftover.pkl"), "never uploaded");
		const kept = await store.keep({ identity, key, license: "apache-2.0", directory });
		assert.deepEqual(await store.keep({ identity, key, license: "apache-2.0", directory }), kept);
		assert.deepEqual(await storeOf().find(identity), kept);
		assert.deepEqual(store.placeOf(identity, kept.revision), kept);
		const signal = AbortSignal.timeout(10_000);
		const to = join(folder, "fetched");
		assert.deepEqual(await store.bring({ stored: kept, directory: to, signal }), { key });
		assert.equal(await readFile(join(to, "block-0.safetensors"), "utf8"), "factors of one");
		for (const other of [
			{ ...identity, sha: shaOf("other") },
			{ ...identity, fingerprint: "0".repeat(32) },
		]) {
			assert.equal(await store.find(other), null);
		}
		const info = await datasetInfo({ ...access(BOT), name: REPO });
		assert.equal(info.private, true);
		assert.equal(await storeOf(REPO, "private", STRANGER).find(identity), null);
		const names = (await listRepoFiles({ ...access(BOT), repo: REPO, kind: "dataset", revision: "main" })).map(
			(file) => file.path,
		);
		assert.deepEqual(names.filter((name) => name !== ".gitattributes").sort(), [
			"README.md",
			`${kept.path}/block-0.safetensors`,
			`${kept.path}/sketch.json`,
			"index.jsonl",
		]);
	});

	test("sketches that arrive at once are all kept, with a line each in the index and the card", async () => {
		const names = ["acme/two", "acme/three", "acme/four"];
		await Promise.all(
			names.map(async (name) => {
				const made = await writeSketch(name.replace("/", "-"), `factors of ${name}`);
				const request = { identity: identityOf(name), license: "odd | `licence` <b>", ...made };
				// As the queue does: somebody else's commit in between is another try.
				await until("the sketch to be kept", () =>
					storeOf()
						.keep(request)
						.catch(() => null),
				);
			}),
		);
		const text = async (path: string): Promise<string> =>
			await (
				await fetch(`${hub.url}/datasets/${REPO}/resolve/main/${path}`, { headers: { authorization: `Bearer ${BOT}` } })
			).text();
		const lines = (await text("index.jsonl")).trim().split("\n");
		assert.deepEqual(lines.map((line) => JSON.parse(line).source).sort(), [
			"acme/four",
			"acme/one",
			"acme/three",
			"acme/two",
		]);
		const card = await text("README.md");
		const [, front = ""] = /^---\n([\s\S]*?)\n---\n/.exec(card) ?? [];
		assert.deepEqual(parse(front).configs, [{ config_name: "index", data_files: "index.jsonl" }]);
		for (const name of names) assert.ok(card.includes(`| ${name} |`), name);
		assert.ok(!card.includes("<b>"));
	});

	test("damaged, replaced and linked files are not stored", async () => {
		const identity = identityOf("acme/bad");
		const { directory, key } = await writeSketch("bad", "factors of bad");
		const keep = (from: string, wanted = key) =>
			storeOf().keep({ identity, key: wanted, license: null, directory: from });
		await assert.rejects(keep(directory, sha256("another")), /another one/);
		const changed = join(folder, "changed");
		await cp(directory, changed, { recursive: true });
		await writeFile(join(changed, "block-0.safetensors"), "factors of bAd");
		await assert.rejects(keep(changed), /damaged/);
		const linked = join(folder, "linked");
		await cp(directory, linked, { recursive: true });
		await rm(join(linked, "block-0.safetensors"));
		await symlink(join(directory, "block-0.safetensors"), join(linked, "block-0.safetensors"));
		await assert.rejects(keep(linked), /not as listed/);
		const outside = join(folder, "outside");
		await mkdir(outside);
		const record = JSON.parse(await readFile(join(directory, "sketch.json"), "utf8"));
		record.files = { "../../secret.safetensors": record.files["block-0.safetensors"] };
		await writeFile(join(outside, "sketch.json"), JSON.stringify(record));
		await assert.rejects(keep(outside), /cannot be read/);
		assert.equal(await storeOf().find(identity), null);
	});

	test("private sketches do not go to a public repo, and a public store is open to all", async () => {
		await createRepo({ ...access(BOT), repo: { type: "dataset", name: "bot/open" }, visibility: "public" });
		const { directory, key } = await writeSketch("open", "factors of open");
		const request = { identity: identityOf("acme/open"), key, license: null, directory };
		await assert.rejects(storeOf("bot/open").keep(request), /is public/);
		const kept = await storeOf("bot/open", "public").keep(request);
		assert.deepEqual(await storeOf("bot/open", "public", STRANGER).find(request.identity), kept);
		await assert.rejects(storeOf("stranger/sketches").keep(request), /may not create/);
	});

	test("what one job sketched later ones reuse: on its machine, on another, and in remote runs", async () => {
		const dataDirectory = join(folder, "bot");
		const database = await openDatabase({
			dataDirectory,
			databaseUrl: null,
			poolSize: 2,
			clock: systemClock,
			log: silentLog,
		});
		const world = scriptedWorld(worldFolder(dataDirectory));
		const configuration = scriptedConfiguration(dataDirectory, { sketches: { repo: REPO } });
		const local = scriptedRunner(configuration);
		let isRemote = false;
		let store = storeOf();
		const specs: JobSpec[] = [];
		const runner: Runner = {
			...local,
			get isRemote() {
				return isRemote;
			},
			dispatch: (spec) => {
				specs.push(spec);
				// A run elsewhere has fetched its source by itself.
				assert.equal(spec.source.path === undefined, isRemote);
				return local.dispatch({ ...spec, source: { ...spec.source, path: spec.source.path ?? dataDirectory } });
			},
		};
		const engine = engineWithRequests({
			database,
			configuration,
			ports: {
				...scriptedPorts(world),
				get sketchStore() {
					return store;
				},
			},
			runner,
			superviseIntervalMs: 200,
		});
		const source = "acme/shared";
		const identity = { repo: source, sha: shaOf(source), fingerprint: sketchFingerprint(configuration) };
		world.setHead(source, identity.sha);
		world.setContent(identity.sha, { weights: "w", companions: "t" });
		/** The sketch that the job's run was told of. */
		async function sketchOfJob(recipe: string): Promise<Pick<JobSpec["sketch"], "reuse" | "stored">> {
			const parsed = parseRecipe(recipe);
			assert.ok(parsed.ok);
			const outcome = await engine.recordRequest({
				kind: "api",
				sourceRepo: source,
				recipes: [parsed.recipe],
				requester: null,
				replyTo: null,
				dedupeKey: randomUUID(),
			});
			assert.ok(outcome.kind === "planned", JSON.stringify(outcome));
			await untilState(database, outcome.job.id, ["done"]);
			const spec = specs.find((one) => one.job === outcome.job.id);
			assert.ok(spec !== undefined);
			return spec.sketch;
		}
		/** As another machine with a database of its own sees it: the Hub alone knows. */
		async function forget(): Promise<void> {
			await database.handle.deleteFrom("sketches").execute();
			await rm(join(dataDirectory, "sketches"), { recursive: true, force: true });
		}
		const factors = async (sketch: { readonly reuse?: string | undefined }): Promise<string> =>
			await readFile(join(sketch.reuse ?? "", "block-0.safetensors"), "utf8");
		await engine.start();
		try {
			const first = await sketchOfJob("gguf:q4_0");
			assert.deepEqual([first.reuse, first.stored], [undefined, undefined]);
			const isStored = () =>
				until("the sketch to be stored", async () => {
					const row = await findSketch(database.handle, identity);
					return row?.stored?.repo === REPO ? row.stored : null;
				});
			const kept = await isStored();
			const here = await sketchOfJob("gguf:q8_0");
			assert.equal(await factors(here), `factors of ${source}`);
			await forget();
			const elsewhere = await sketchOfJob("w4a16");
			assert.equal(await factors(elsewhere), `factors of ${source}`);
			isRemote = true;
			const remote = await sketchOfJob("w8a16");
			assert.deepEqual(remote.stored, storeOf().placeOf(identity, kept.revision));
			await forget();
			assert.equal((await sketchOfJob("gguf:q5_0")).stored?.path, remote.stored?.path);

			// Weights alone count, not the commit: a new tokenizer may leave the tokens as they are, which the run sees.
			const commits = (text: string, weights: string) => {
				world.setHead(source, shaOf(text));
				world.setContent(shaOf(text), { weights, companions: text });
			};
			await isStored();
			commits("a new template", "w");
			assert.deepEqual((await sketchOfJob("gguf:q8_0")).stored?.path, remote.stored?.path);
			isRemote = false;
			commits("another template", "w");
			// Another machine of the same database.
			await rm(join(dataDirectory, "sketches"), { recursive: true, force: true });
			await database.handle.deleteFrom("sketches").where("source_sha", "!=", identity.sha).execute();
			assert.equal(await factors(await sketchOfJob("gguf:q8_0")), `factors of ${source}`);
			commits("new weights", "v");
			const anew = await sketchOfJob("gguf:q8_0");
			assert.deepEqual([anew.reuse, anew.stored], [undefined, undefined]);
			// A store that cannot be reached costs the sketch, not the job.
			await forget();
			isRemote = false;
			const nowhere = { hubUrl: "http://127.0.0.1:9", accessToken: BOT };
			store = createSketchStore({ writer: nowhere, reader: nowhere, repo: REPO, visibility: "private" });
			const alone = await sketchOfJob("gguf:q4_1");
			assert.deepEqual([alone.reuse, alone.stored], [undefined, undefined]);
		} finally {
			await engine.stop();
			await database.close();
		}
	});
});
