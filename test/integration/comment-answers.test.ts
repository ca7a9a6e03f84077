import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { createRepo, uploadFiles, whoAmI } from "@huggingface/hub";
import { systemClock } from "../../src/clock.ts";
import type { AnswerOptions } from "../../src/commands/answer-options.ts";
import { createCommentHandler, createReplier } from "../../src/commands/comment-answers.ts";
import { hubForum } from "../../src/commands/hub-forum.ts";
import { hubSubject } from "../../src/commands/hub-subject.ts";
import { HUB_WORDS } from "../../src/commands/replies/reply-context.ts";
import { readTrailer } from "../../src/commands/reply-trailer.ts";
import { openDatabase } from "../../src/db/open-database.ts";
import { commentOnDiscussion } from "../../src/hub/comment-on-discussion.ts";
import { createDiscussion } from "../../src/hub/create-discussion.ts";
import { commentsOf } from "../../src/hub/discussion.ts";
import { editComment } from "../../src/hub/edit-comment.ts";
import { getDiscussion } from "../../src/hub/get-discussion.ts";
import type { RecordRequest, RequestInput } from "../../src/jobs/ports.ts";
import { createKeyedLock } from "../../src/keyed-lock.ts";
import { type LocalHub, startLocalHub } from "../../src/local-hub/start-local-hub.ts";
import { silentLog } from "../../src/log.ts";
import type { JobRecord } from "../../src/records/job.ts";
import type { RequestRecord } from "../../src/records/request.ts";
import { answerRecords } from "../../src/server/comment-records.ts";
import { makeJob, makeVariant, uuid } from "../support/web-fixtures.ts";

const OWNER = "hf_owner_of_the_test";
const BOT = "hf_bot_of_the_test";
const VISITOR = "hf_visitor_of_the_test";
const REPO = "owner/model";

let hub: LocalHub;
let folder: string;
let discussion: number;
let asked: RequestInput[] = [];
let remembered: string[] = [];
const job: JobRecord = makeJob({ sourceRepo: REPO, state: "planned", statusText: "Planned." });

const access = (accessToken: string) => ({ hubUrl: hub.url, accessToken });

before(async () => {
	folder = await mkdtemp(join(tmpdir(), "yaqa-comments-"));
	hub = await startLocalHub({
		dataDirectory: folder,
		host: "127.0.0.1",
		port: 0,
		users: [
			{ name: "owner", token: OWNER },
			{ name: "yaqa-bot", token: BOT },
			{ name: "visitor", token: VISITOR },
		],
		clock: systemClock,
		log: silentLog,
	});
	await createRepo({ ...access(OWNER), repo: { type: "model", name: REPO } });
	await uploadFiles({
		...access(OWNER),
		repo: { type: "model", name: REPO },
		files: [{ path: "README.md", content: new Blob(["x"]) }],
	});
});
after(async () => {
	await hub.close();
	await rm(folder, { recursive: true, force: true });
});
beforeEach(async () => {
	asked = [];
	remembered = [];
	const opened = await createDiscussion({ ...access(OWNER), repo: REPO, title: "A question", description: "Hello." });
	discussion = opened.num;
});

const requests = new Map<string, RequestRecord>();
const recordRequest: RecordRequest = async (input) => {
	asked.push(input);
	const known = requests.get(input.dedupeKey);
	const request: RequestRecord = known ?? {
		id: uuid(),
		kind: input.kind,
		sourceRepo: input.sourceRepo,
		sourceSha: job.sourceSha,
		recipes: input.recipes.map((recipe) => recipe.canonical),
		requester: input.requester,
		replyTo: input.replyTo,
		jobId: job.id,
		refusal: null,
		createdAt: new Date(),
	};
	requests.set(input.dedupeKey, request);
	const variants = request.recipes.map((recipe) => makeVariant({ recipe, state: "wanted", sourceRepo: REPO }));
	return { kind: "planned", request, job, variants, created: known === undefined };
};

function answers(options: Partial<AnswerOptions> = {}) {
	const all: AnswerOptions = {
		forum: hubForum({ hub: access(BOT), botUserId: async () => (await whoAmI(access(BOT))).id }),
		host: "hub",
		subjectOf: hubSubject,
		context: { ...HUB_WORDS, hubUrl: hub.url, siteUrl: "http://bot.example", botName: "yaqa-bot" },
		defaultRecipes: () => ["gguf:q4_0", "onnx:q4"],
		calibration: "self",
		allow: [],
		ignore: [],
		strangers: "refuse",
		quota: { perPersonPerDay: 3, perDay: 50 },
		countRequests: async () => 0,
		recordRequest,
		claimStrangerAnswer: async () => true,
		previewRequest: () => Promise.reject(new Error("not asked for here")),
		cancelJob: () => Promise.reject(new Error("not asked for here")),
		retryJob: () => Promise.reject(new Error("not asked for here")),
		requestersOf: async () => [],
		rememberReply: async (_request, id) => void remembered.push(id),
		statusOf: async () => ({ jobs: [job], variants: [makeVariant({ sourceRepo: REPO })] }),
		alone: createKeyedLock(),
		log: silentLog,
		...options,
	};
	return { handleComment: createCommentHandler(all), reply: createReplier(all) };
}

async function say(token: string, comment: string): Promise<string> {
	return (await commentOnDiscussion({ ...access(token), repo: REPO, num: discussion, comment })).id;
}

async function botComments(): Promise<{ id: string; text: string }[]> {
	const read = await getDiscussion({ ...access(OWNER), repo: REPO, num: discussion });
	return commentsOf(read)
		.filter((comment) => comment.author?.name === "yaqa-bot")
		.map((comment) => ({ id: comment.id, text: comment.data.latest.raw ?? "" }));
}

const hint = (commentId: string | null) => ({ deliveryId: uuid(), repo: REPO, discussion, commentId });

test("the owner's command becomes one request and one answer with the plan and the job's page", async () => {
	const id = await say(OWNER, "@yaqa-bot quantize 8bit gguf");

	const outcome = await answers().handleComment(hint(id));

	assert.equal(outcome.outcome, "accepted");
	assert.deepEqual(
		asked.map((input) => [
			input.kind,
			input.sourceRepo,
			input.requester,
			input.recipes.map((recipe) => recipe.canonical),
		]),
		[["comment", REPO, "owner", ["gguf:q8_0"]]],
	);
	const [answer, ...more] = await botComments();
	assert.equal(more.length, 0);
	assert.match(answer?.text ?? "", /gguf:q8_0/);
	assert.match(answer?.text ?? "", new RegExp(`http://bot\\.example/jobs/${job.id}`));
	assert.equal(readTrailer(answer?.text ?? "")?.comment, id);
	assert.deepEqual(remembered, [answer?.id]);
});

test("handled twice, at once or after a crash, it is answered once", async () => {
	const id = await say(OWNER, "@yaqa-bot quantize 8bit gguf");
	const one = answers();

	await Promise.all([one.handleComment(hint(id)), one.handleComment(hint(id))]);
	await answers().handleComment(hint(id));

	assert.equal((await botComments()).length, 1);
	assert.equal(new Set(asked.map((input) => input.dedupeKey)).size, 1);
});

test("requests of one stranger at the same moment in several threads do not pass the quota", async () => {
	const recorded: string[] = [];
	const one = answers({
		strangers: "public",
		quota: { perPersonPerDay: 3, perDay: 50 },
		countRequests: async () => recorded.length,
		recordRequest: async (input) => {
			// A source takes a while to be looked at.
			await new Promise((resolve) => setTimeout(resolve, 20));
			recorded.push(input.dedupeKey);
			return await recordRequest(input);
		},
	});
	const places = await Promise.all(
		Array.from({ length: 8 }, async (_, index) => {
			const opened = await createDiscussion({
				...access(VISITOR),
				repo: REPO,
				title: `Thread ${index}`,
				description: "@yaqa-bot quantize 8bit gguf",
			});
			return { deliveryId: uuid(), repo: REPO, discussion: opened.num, commentId: null };
		}),
	);
	const outcomes = await Promise.all(places.map((place) => one.handleComment(place)));
	assert.equal(recorded.length, 3);
	assert.equal(outcomes.filter(({ detail }) => detail.includes("refused: quota")).length, 5);
});

test("a stranger is answered so often in a day and no more, in however many threads; the owner always", async () => {
	const own = await mkdtemp(join(tmpdir(), "yaqa-answers-"));
	const database = await openDatabase({
		dataDirectory: own,
		databaseUrl: null,
		poolSize: 2,
		clock: systemClock,
		log: silentLog,
	});
	try {
		const { claimStrangerAnswer } = answerRecords({
			database,
			clock: systemClock,
			limits: { perPersonPerDay: 3, perDay: 4 },
		});
		const one = answers({ claimStrangerAnswer });
		const openedBy = async (token: string) => {
			const opened = await createDiscussion({
				...access(token),
				repo: REPO,
				title: "Hello",
				description: "@yaqa-bot ping",
			});
			return { deliveryId: uuid(), repo: REPO, discussion: opened.num, commentId: null };
		};
		const places = await Promise.all(Array.from({ length: 6 }, () => openedBy(VISITOR)));
		const outcomes = await Promise.all(places.map((place) => one.handleComment(place)));
		assert.equal(outcomes.filter(({ outcome }) => outcome === "accepted").length, 3);
		assert.match(outcomes.find(({ outcome }) => outcome === "ignored")?.detail ?? "", /without rights in 24 hours/);
		// The same comment, heard of again, is no further answer, and all strangers together have a limit too.
		assert.equal(await claimStrangerAnswer("another comment", "Visitor"), false);
		assert.equal(await claimStrangerAnswer("somebody else's", "other"), true);
		assert.equal(await claimStrangerAnswer("somebody else's", "other"), true);
		assert.equal(await claimStrangerAnswer("a third person's", "third"), false);
		assert.equal((await one.handleComment(await openedBy(OWNER))).outcome, "accepted");
	} finally {
		await database.close();
		await rm(own, { recursive: true, force: true });
	}
});

test("the opening message counts as a comment", async () => {
	const opened = await createDiscussion({
		...access(OWNER),
		repo: REPO,
		title: "Please",
		description: "@yaqa-bot status",
	});
	discussion = opened.num;

	const outcome = await answers().handleComment(hint(null));

	assert.equal(outcome.detail, "status");
	assert.match((await botComments())[0]?.text ?? "", /Variants of this repo/);
});

test("a stranger is refused in words and asks for nothing", async () => {
	const id = await say(VISITOR, "@yaqa-bot quantize 8bit gguf");

	const outcome = await answers().handleComment(hint(id));

	assert.equal(outcome.outcome, "accepted");
	assert.equal(asked.length, 0);
	const text = (await botComments())[0]?.text ?? "";
	assert.match(text, /owner of this repo/);
	assert.ok(!text.includes("@visitor"), "nobody is called");
});

test("a stranger on the operator's list may ask, and anybody may ask for help", async () => {
	await answers({ allow: ["Visitor"] }).handleComment(hint(await say(VISITOR, "@yaqa-bot 8bit gguf")));
	assert.equal(asked.length, 1);

	const outcome = await answers().handleComment(hint(await say(VISITOR, "@yaqa-bot help")));
	assert.equal(outcome.detail, "help");
	assert.match((await botComments()).at(-1)?.text ?? "", /@yaqa-bot quantize 8bit gguf/);
});

test("a typo is answered with what was meant, and nothing runs", async () => {
	await answers().handleComment(hint(await say(OWNER, "@yaqa-bot quantize 8bit guf")));

	assert.equal(asked.length, 0);
	assert.match((await botComments())[0]?.text ?? "", /Did you mean `@yaqa-bot quantize 8bit gguf`\?/);
});

test("hostile text comes back as code: no links, no mentions, no markup", async () => {
	await answers().handleComment(
		hint(await say(OWNER, "@yaqa-bot frobnicate `x` @everyone <img src=x> [a](http://evil.example) --> ~~b~~")),
	);
	const text = (await botComments())[0]?.text ?? "";
	assert.ok(!text.includes("@everyone"));
	assert.ok(!text.includes("](http://evil"));
	assert.ok(!text.includes("<img"));
	assert.equal(readTrailer(text)?.state, "answered");
});

test("not addressed, quoted, hidden and its own comments are passed over", async () => {
	const handler = answers();
	for (const text of ["Nice model", "> @yaqa-bot quantize 8bit gguf", "`@yaqa-bot help`"]) {
		assert.equal((await handler.handleComment(hint(await say(OWNER, text)))).outcome, "ignored");
	}
	const own = await say(BOT, "@yaqa-bot quantize 8bit gguf");
	assert.equal((await handler.handleComment(hint(own))).detail, "the bot's own comment");
	assert.equal((await handler.handleComment(hint("0".repeat(24)))).detail, "the comment is hidden or gone");
	assert.equal((await handler.handleComment({ ...hint(null), discussion: 9999 })).outcome, "ignored");
	assert.equal(asked.length, 0);
});

test("when the job goes on its answer is edited, not posted again", async () => {
	const id = await say(OWNER, "@yaqa-bot quantize 8bit gguf\n@yaqa-bot status");
	const both = answers();
	await both.handleComment(hint(id));
	const request = [...requests.values()].find((candidate) => candidate.replyTo?.commentId === id);
	assert.ok(request !== undefined);

	const variant = makeVariant({ recipe: "gguf:q8_0", sourceRepo: REPO, kl: 0.0002 });
	const first = await both.reply({ request, job: { ...job, state: "done" }, variants: [variant] });
	const again = await both.reply({ request, job: { ...job, state: "done" }, variants: [variant] });

	const comments = await botComments();
	assert.equal(comments.length, 1);
	assert.equal(first.replyCommentId, comments[0]?.id);
	assert.equal(again.replyCommentId, comments[0]?.id);
	const text = comments[0]?.text ?? "";
	assert.match(text, /\*\*Done\*\*/);
	assert.match(text, /\[yaqa-bot\/model-YAQA-GGUF\]\(/);
	assert.match(text, /Variants of this repo/, "what else the answer said is kept");
	assert.equal(readTrailer(text)?.state, "done");
	assert.equal(text.match(/yaqa-bot: \{/g)?.length, 1);
});

test("an answer that was lost is written anew, and a refusal tells cause and remedy", async () => {
	const id = await say(OWNER, "@yaqa-bot quantize 8bit gguf");
	const request: RequestRecord = {
		id: uuid(),
		kind: "comment",
		sourceRepo: REPO,
		sourceSha: null,
		recipes: ["gguf:q8_0"],
		requester: "owner",
		replyTo: { discussion, commentId: id, replyCommentId: null },
		jobId: null,
		refusal: { code: "pickle-only", message: "Only pickle files.", remedy: "Save it as safetensors." },
		createdAt: new Date(),
	};
	const { replyCommentId } = await answers().reply({ request, job: null, variants: [] });
	const [comment] = await botComments();
	assert.equal(replyCommentId, comment?.id);
	assert.match(comment?.text ?? "", /Only pickle files\.[\s\S]*Save it as safetensors\./);
});

test("an edited comment that asks for something else is another request under the same answer", async () => {
	const id = await say(OWNER, "@yaqa-bot quantize 8bit gguf");
	const handler = answers();
	await handler.handleComment(hint(id));
	await editComment({
		...access(OWNER),
		repo: REPO,
		num: discussion,
		commentId: id,
		content: "@yaqa-bot quantize onnx:q8",
	});

	await handler.handleComment(hint(id));

	assert.deepEqual(
		asked.map((input) => input.recipes.map((recipe) => recipe.canonical)),
		[["gguf:q8_0"], ["onnx:q8"]],
	);
	const comments = await botComments();
	assert.equal(comments.length, 1);
	assert.match(comments[0]?.text ?? "", /onnx:q8/);
});

test("a fault of the Hub while answering leaves the comment to be tried again", async () => {
	const id = await say(OWNER, "@yaqa-bot quantize 8bit gguf");
	const failing = answers({ recordRequest: () => Promise.reject(new Error("database down")) });
	await assert.rejects(async () => await failing.handleComment(hint(id)), /database down/);
	assert.equal((await botComments()).length, 0);
	await answers().handleComment(hint(id));
	assert.equal((await botComments()).length, 1);
});
