import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { listModels, whoAmI } from "@huggingface/hub";
import { createCommentHandler } from "../../src/commands/comment-answers.ts";
import { hubForum } from "../../src/commands/hub-forum.ts";
import { hubSubject } from "../../src/commands/hub-subject.ts";
import { HUB_WORDS } from "../../src/commands/replies/reply-context.ts";
import { PermanentError } from "../../src/errors.ts";
import { commentOnDiscussion } from "../../src/hub/comment-on-discussion.ts";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { commentsOf } from "../../src/hub/discussion.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import { createHubFetch } from "../../src/hub/hub-fetch.ts";
import { createKeyedLock } from "../../src/keyed-lock.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { silentLog } from "../../src/log.ts";
import { createPublishPorts } from "../../src/publish/publish-ports.ts";
import { fetchSource } from "../../src/verify/fetch-source.ts";
import { inspectSource } from "../../src/verify/inspect-source.ts";
import { call, commit, file } from "../support/local-hub-fixture.ts";
import { pushTinySource, readTinyManifest, tinyDirectory } from "../support/tiny-variants.ts";

/** What the first days bring: each is told in words a person can act on, and leaves nothing half done. */

const OWNER = "hf_owner_token";
const BOT = "hf_bot_token";
const READER = "hf_bot_read_token";
const LIMITS = { maximumWeightBytes: 1e9 };

let hub: LocalHub;
let work: string;
const requests: string[] = [];

before(async () => {
	work = await mkdtemp(join(tmpdir(), "yaqa-refusals-"));
	hub = await startLocalHub({
		dataDirectory: join(work, "hub"),
		users: [
			{ name: "owner", token: OWNER },
			{
				name: "bot",
				token: BOT,
				orgs: [{ name: "staging", role: "admin" }],
				moreTokens: [{ token: READER, role: "read" }],
			},
		],
		onRequest: ({ method, path }) => requests.push(`${method} ${path}`),
	});
});
after(async () => {
	await hub.close();
	await rm(work, { recursive: true, force: true });
});

function access(accessToken: string) {
	return { hubUrl: hub.url, accessToken, fetch: createHubFetch({ hubUrl: hub.url, attempts: 2 }) };
}

const push = (repo: string): Promise<string> => pushTinySource(access(OWNER), repo);

/** A failure that a person reads: what happened, and what helps; no status without words, no stack. */
function assertPlain(error: unknown, message: RegExp, remedy: RegExp): void {
	assert.ok(error instanceof PermanentError, String(error));
	assert.match(error.refusal.message, message);
	assert.match(error.refusal.remedy, remedy);
	assert.doesNotMatch(`${error.refusal.message} ${error.refusal.remedy}`, /\n\s+at |HubApiError|undefined|\[object/);
}

async function reposOf(owner: string): Promise<readonly string[]> {
	const found: string[] = [];
	for await (const { name } of listModels({ ...access(BOT), search: { owner } })) found.push(name);
	return found;
}

describe("publishing where it is not possible", () => {
	async function outcomeOf(targetNamespace: string, token: string): Promise<unknown> {
		const repo = `owner/for-${targetNamespace}-${token.length}`;
		const sourceSha = await push(repo);
		const directory = await mkdtemp(join(work, "variant-"));
		await cp(tinyDirectory("w4a16"), directory, { recursive: true });
		const manifest = await readTinyManifest("w4a16");
		manifest.source = { repo, revision: sourceSha, license: "apache-2.0" };
		await writeFile(join(directory, "manifest.json"), JSON.stringify(manifest));
		const ports = createPublishPorts({
			publisher: access(token),
			reader: access(READER),
			discussions: access(token),
			namespace: targetNamespace,
			publicUrl: null,
		});
		const request = {
			targetRepo: `${targetNamespace}/model-YAQA-W4A16`,
			job: { sourceRepo: repo, sourceSha },
			variants: [{ manifest, directory }],
			siblings: [],
		};
		return await ports.publish(request).catch((error: unknown) => error);
	}

	test("a namespace that does not exist is named, with what to set", async () => {
		const error = await outcomeOf("nowhere", BOT);
		assertPlain(error, /may not create nowhere\//, /sees that the Hub has nowhere \(hub\.namespace\).*doctor/);
		assert.deepEqual(await reposOf("nowhere"), []);
	});

	test("a token without rights is told with the right that it lacks", async () => {
		const error = await outcomeOf("bot", READER);
		assertPlain(error, /may not create bot\//, /gives the publishing token write access/);
		assert.deepEqual(await reposOf("bot"), []);
	});
});

test("a repo that is renamed between webhook and job is found under its new name, at the pushed commit", async () => {
	const sha = await push("owner/before");
	const body = { fromRepo: "owner/before", toRepo: "owner/after", type: "model" };
	assert.equal((await call(`${hub.url}/api/repos/move`, { token: OWNER, body })).status, 200);
	const inspection = await inspectSource({ ...access(READER), repo: "owner/before", revision: sha, limits: LIMITS });
	assert.ok(inspection.ok, inspection.ok ? "" : inspection.refusal.message);
	assert.equal(inspection.facts.sha, sha);
	const directory = join(work, "renamed");
	const fetched = await fetchSource({
		...access(READER),
		repo: "owner/before",
		sha,
		directory,
		limits: LIMITS,
		signal: AbortSignal.timeout(60_000),
	});
	assert.deepEqual(fetched, { ok: true });
	assert.ok((await readdir(directory)).includes("model.safetensors"));
});

test("a model of 25,000 files is refused with the number, before any of its weights are read", async () => {
	const sha = await push("owner/many");
	const lines = Array.from({ length: 25_000 }, (_, index) => file(`notes/${index}.txt`, "note"));
	assert.equal((await commit(hub, "owner/many", lines, { token: OWNER })).status, 200);
	requests.length = 0;
	const error = await inspectSource({
		...access(READER),
		repo: "owner/many",
		revision: "main",
		limits: LIMITS,
	}).then(
		(inspection) => (inspection.ok ? "accepted" : new PermanentError(inspection.refusal)),
		(reason: unknown) => reason,
	);
	assertPlain(error, /more than 20000 files/, /Move what does not belong to the model/);
	assert.ok(
		!requests.some((one) => one.includes("/resolve/")),
		requests.filter((one) => one.includes("/resolve/")).join(),
	);
	assert.ok((await inspectSource({ ...access(READER), repo: "owner/many", revision: sha, limits: LIMITS })).ok);
});

describe("discussions that are closed to the bot", () => {
	const repo = "owner/talked-about";
	let asked = 0;
	before(() => push(repo));

	function handler() {
		return createCommentHandler({
			forum: hubForum({ hub: access(BOT), botUserId: async () => (await whoAmI(access(BOT))).id }),
			host: "hub",
			subjectOf: hubSubject,
			context: { ...HUB_WORDS, hubUrl: hub.url, siteUrl: "http://bot.example", botName: "bot" },
			defaultRecipes: () => ["gguf:q4_0"],
			calibration: "self",
			allow: [],
			ignore: [],
			strangers: "refuse",
			quota: { perPersonPerDay: 3, perDay: 50 },
			countRequests: async () => 0,
			recordRequest: () => {
				asked++;
				return Promise.reject(new Error("nothing may be asked for here"));
			},
			claimStrangerAnswer: async () => true,
			previewRequest: () => Promise.reject(new Error("not asked for here")),
			cancelJob: () => Promise.reject(new Error("not asked for here")),
			retryJob: () => Promise.reject(new Error("not asked for here")),
			requestersOf: async () => [],
			rememberReply: async () => undefined,
			statusOf: async () => ({ jobs: [], variants: [] }),
			alone: createKeyedLock(),
			log: silentLog,
		});
	}

	async function commanded(): Promise<{ readonly num: number; readonly id: string }> {
		const { num } = await createDiscussion({ ...access(OWNER), repo, title: "A question", description: "Hello." });
		const { id } = await commentOnDiscussion({ ...access(OWNER), repo, num, comment: "@bot 4bit gguf" });
		return { num, id };
	}
	const hint = ({ num, id }: { readonly num: number; readonly id: string }) => ({
		deliveryId: randomUUID(),
		repo,
		discussion: num,
		commentId: id,
	});

	test("a deleted one is passed over with the reason, and nothing runs", async () => {
		const place = await commanded();
		const gone = await call(`${hub.url}/api/models/${repo}/discussions/${place.num}`, {
			method: "DELETE",
			token: OWNER,
		});
		assert.equal(gone.status, 200);
		assert.deepEqual(await handler()(hint(place)), { outcome: "ignored", detail: "the discussion cannot be read" });
		assert.equal(asked, 0);
	});

	test("a locked one is passed over with the reason, and nothing runs that nobody could be told of", async () => {
		const place = await commanded();
		const lock = { token: OWNER, body: { locked: true } };
		assert.equal((await call(`${hub.url}/api/models/${repo}/discussions/${place.num}/lock`, lock)).status, 200);
		const refused = await call(`${hub.url}/api/models/${repo}/discussions/${place.num}/comment`, {
			token: BOT,
			body: { comment: "Still here" },
		});
		assert.equal(refused.status, 403);
		assert.deepEqual(await handler()(hint(place)), { outcome: "ignored", detail: "the discussion is locked" });
		assert.equal(asked, 0);
		const said = commentsOf(await getDiscussion({ ...access(OWNER), repo, num: place.num }));
		assert.ok(said.every(({ author }) => author?.name === "owner"));
	});

	test("the status of a model goes on in a new one where its discussion was deleted", async () => {
		const ports = createPublishPorts({
			publisher: access(BOT),
			reader: access(READER),
			discussions: access(BOT),
			namespace: "bot",
			publicUrl: null,
		});
		const status = (discussion: number | null) => ({
			sourceRepo: repo,
			variants: [],
			jobs: [],
			refused: null,
			discussion,
		});
		const first = await ports.announce(status(null));
		assert.ok(first.discussion !== null);
		await call(`${hub.url}/api/models/${repo}/discussions/${first.discussion}`, { method: "DELETE", token: OWNER });
		const second = await ports.announce(status(first.discussion));
		assert.ok(second.discussion !== null && second.discussion !== first.discussion);
	});
});
