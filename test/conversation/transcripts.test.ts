import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { MAXIMUM_COMMENT_CHARACTERS } from "../../src/hub/discussion.ts";
import { openStage, type Scene, type Stage } from "./stage.ts";

/**
 * Comment in, replies and jobs out. What the bot answers in each case stands word for word in `transcripts.md`;
 * `YAQA_WRITE_TRANSCRIPTS=1 npm run test:conversation` writes that file anew, to be read before it is committed.
 */
const FILE = new URL("./transcripts.md", import.meta.url);
const writes = process.env["YAQA_WRITE_TRANSCRIPTS"] === "1";

type Case = {
	readonly name: string;
	readonly options?: Parameters<Stage["scene"]>[0];
	readonly plays: (scene: Scene) => Promise<void>;
	/** How many answers the bot has written at the end. */
	readonly answers: number;
	/** How many jobs there are at the end. */
	readonly jobs: number;
};

const public_ = {
	configuration: { requests: { strangers: "public", quota: { perPersonPerDay: 2, perDay: 50 } } },
} as const;
const approval = { configuration: { requests: { strangers: "approval" } } } as const;

const CASES: readonly Case[] = [
	{
		name: "The owner asks for a variant, and the answer follows the job to its end",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot quantize 8bit gguf");
			await scene.jobIs("running", "Rounding layer 12 of 24.");
			await scene.jobIs("done", "Done.");
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "The short form",
		plays: (scene) => scene.says("owner", "@yaqa-bot 4bit gguf please"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "quantize alone gives what a push gives",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "bits and format as options",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize bits=4,8 format=onnx"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "An exact recipe with an option",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize w4a16,group=32"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "A revision that is named",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize 8bit gguf revision=main"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "A revision that cannot be one",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize 8bit gguf revision=../../etc/passwd"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "Several commands in one comment",
		plays: (scene) => scene.says("owner", "Hello!\n\n@yaqa-bot 8bit gguf\n@yaqa-bot quantize onnx:q8\n@yaqa-bot ping"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "The same line twice is one wish",
		plays: (scene) => scene.says("owner", "@yaqa-bot 8bit gguf\n@yaqa-bot quantize gguf:q8_0"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "An edited comment runs only what is new",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf\n@yaqa-bot ping");
			await scene.edits("owner", "@yaqa-bot 8bit gguf\n@yaqa-bot quantize onnx:q8");
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "A cancel is not done again when its comment is edited",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.says("owner", "@yaqa-bot cancel");
			await scene.jobIs("cancelled", "Cancelled.");
			await scene.edits("owner", "@yaqa-bot cancel\n\nBy mistake.");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "Told of twice, answered once",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.deliversAgain();
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "What is published already is shown, not made again",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.jobIs("done", "Done.");
			await scene.says("owner", "@yaqa-bot quantize gguf:q8_0");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "A new commit with the same weights, after somebody deleted the published repo",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.jobIs("done", "Done.");
			await scene.pushes({ sameWeights: true });
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.works();
			await scene.works();
			await scene.jobIs("done", "Done.");
		},
		answers: 2,
		jobs: 2,
	},
	{
		name: "A member of the organisation may ask",
		options: { namespace: "lab" },
		plays: (scene) => scene.says("member", "@yaqa-bot 8bit gguf"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "Somebody on the operator's list may ask",
		options: { configuration: { requests: { allow: ["Friend"] } } },
		plays: (scene) => scene.says("friend", "@yaqa-bot 8bit gguf"),
		answers: 1,
		jobs: 1,
	},
	{
		name: "Somebody else's repo: refused with the reason, and nobody is called",
		plays: (scene) => scene.says("visitor", "@yaqa-bot 8bit gguf"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "A stranger's request waits, and the owner approves it",
		options: approval,
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot 8bit gguf");
			await scene.says("owner", "@yaqa-bot approve");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "Whoever approves sees the revision that was asked for",
		options: approval,
		plays: (scene) => scene.says("visitor", "@yaqa-bot quantize 8bit gguf revision=v1.0"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "A stranger cannot approve",
		options: approval,
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot 8bit gguf");
			await scene.says("visitor", "@yaqa-bot approve");
		},
		answers: 2,
		jobs: 0,
	},
	{
		name: "What is changed after it was shown is not approved with it",
		options: approval,
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot 8bit gguf");
			await scene.edits("visitor", "@yaqa-bot quantize w8a16");
			await scene.says("owner", "@yaqa-bot approve");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "Nothing waits for approval",
		plays: (scene) => scene.says("owner", "@yaqa-bot approve"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "The public queue has a limit for each person",
		options: public_,
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot 8bit gguf");
			await scene.says("visitor", "@yaqa-bot quantize onnx:q8");
			await scene.says("visitor", "@yaqa-bot quantize w8a16");
		},
		answers: 3,
		jobs: 1,
	},
	{
		name: "A plan starts nothing",
		plays: (scene) => scene.says("visitor", "@yaqa-bot plan 8bit gguf w4a16"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "Status before and after",
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot status");
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.jobIs("done", "Done.");
			await scene.says("visitor", "@yaqa-bot status please");
		},
		answers: 3,
		jobs: 1,
	},
	{
		name: "Status after the model has changed",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.jobIs("done", "Done.");
			await scene.pushes();
			await scene.says("owner", "@yaqa-bot quantize onnx:q8");
			await scene.jobIs("done", "Done.");
			await scene.says("visitor", "@yaqa-bot how is it going?");
		},
		answers: 3,
		jobs: 2,
	},
	{
		name: "Why it failed, and another try",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.jobIs("failed", "Out of memory.", {
				code: "out-of-memory",
				message: "The run needed more than 8 GiB.",
				remedy: "The operator can raise runner.memoryBytes.",
			});
			await scene.says("owner", "@yaqa-bot why did it fail?");
			await scene.says("owner", "@yaqa-bot retry");
		},
		answers: 3,
		jobs: 1,
	},
	{
		name: "What was chosen, and against what",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.jobIs("done", "Done.");
			await scene.says("visitor", "@yaqa-bot explain gguf:q8_0");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "Explain, cancel and retry where there is nothing",
		plays: (scene) => scene.says("owner", "@yaqa-bot explain\n@yaqa-bot cancel\n@yaqa-bot retry"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "A stranger cannot cancel or retry the owner's job",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.says("visitor", "@yaqa-bot cancel\n@yaqa-bot retry");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "A stranger may cancel what they alone asked for",
		options: public_,
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot 8bit gguf");
			await scene.says("visitor", "@yaqa-bot cancel");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "Two jobs: which one?",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.pushes();
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.says("owner", "@yaqa-bot cancel");
			await scene.says("owner", "@yaqa-bot cancel all");
		},
		answers: 4,
		jobs: 2,
	},
	{
		name: "Which file fits",
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot which fits 8 GB at 8k");
			await scene.says("owner", "@yaqa-bot 8bit gguf onnx");
			await scene.jobIs("done", "Done.");
			await scene.says("visitor", "@yaqa-bot which fits 8 GB at 2k?");
			await scene.says("visitor", "@yaqa-bot what fits on an RTX 4090 gguf");
			await scene.says("visitor", "@yaqa-bot which fits 10 MB at 1k");
			await scene.says("visitor", "@yaqa-bot which fits RTX 9999");
		},
		answers: 6,
		jobs: 1,
	},
	{
		name: "A job that is not there",
		plays: (scene) => scene.says("owner", "@yaqa-bot cancel 12345678"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "Help",
		plays: (scene) => scene.says("visitor", "@yaqa-bot help"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "Ping",
		plays: (scene) => scene.says("visitor", "@yaqa-bot ping"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "Every unknown word is named, with the line that was meant",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantise 8bit guf onxx"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "An unknown recipe",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize gguf:q9_9"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "Bits that a format does not have",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize 7bit gguf"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "Options that are understood and not granted",
		plays: (scene) =>
			scene.says("owner", "@yaqa-bot quantize 8bit gguf private\n@yaqa-bot quantize 4bit gguf calibration=wikitext"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "A private source without access, or none of that name",
		plays: async (scene) => {
			scene.hidesModel();
			await scene.says("owner", "@yaqa-bot 8bit gguf");
		},
		answers: 1,
		jobs: 0,
	},
	{
		name: "A gated model",
		plays: async (scene) => {
			scene.refuses({
				code: "gated-without-access",
				message: "The model is gated and this bot's account has no access.",
				remedy: "Its owner can grant access to the bot's account.",
			});
			await scene.says("owner", "@yaqa-bot 8bit gguf");
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "A private repo that the bot's account cannot see: silence",
		options: { private: true },
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
		},
		answers: 0,
		jobs: 0,
	},
	{
		name: "A deleted discussion: silence",
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.deletes("owner");
			await scene.deliversAgain();
			await scene.jobIs("done", "Done.");
		},
		answers: -1,
		jobs: 1,
	},
	{
		name: "A locked discussion: silence, and nothing runs",
		plays: async (scene) => {
			scene.locks();
			await scene.says("owner", "@yaqa-bot 8bit gguf");
		},
		answers: 0,
		jobs: 0,
	},
	{
		name: "A hidden comment: silence",
		plays: async (scene) => {
			await scene.says("owner", "Nice.");
			await scene.hides("owner");
		},
		answers: 0,
		jobs: 0,
	},
	{
		name: "Ten thousand characters around a command",
		plays: (scene) => scene.says("owner", `@yaqa-bot 8bit gguf\n\n${"All of this is beside the point. ".repeat(310)}`),
		answers: 1,
		jobs: 1,
	},
	{
		name: "Ten thousand characters in a command",
		plays: (scene) => scene.says("owner", `@yaqa-bot 8bit gguf ${"x".repeat(10_000)}`),
		answers: 0,
		jobs: 0,
	},
	{
		name: "Right-to-left marks",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize 8bit \u202Efugg"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "HTML and mentions come back as code",
		plays: (scene) => scene.says("owner", "@yaqa-bot frobnicate <img src=x> @everyone [a](http://evil.example)"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "A command in a code block, a quote, a heading, a link: silence",
		plays: async (scene) => {
			await scene.says("owner", "```\n@yaqa-bot 8bit gguf\n```");
			await scene.says("owner", "> @yaqa-bot 8bit gguf\n\nDid that work?");
			await scene.says("owner", "# @yaqa-bot 8bit gguf");
			await scene.says("owner", "[@yaqa-bot 8bit gguf](https://example.com)");
			await scene.says("owner", "I asked @yaqa-bot 8bit gguf yesterday");
		},
		answers: 0,
		jobs: 0,
	},
	{
		name: "Its own comments and other bots' never trigger",
		plays: async (scene) => {
			await scene.says("yaqa-bot", "@yaqa-bot 8bit gguf");
			await scene.says("metadata-bot", "@yaqa-bot 8bit gguf");
		},
		answers: 1,
		jobs: 0,
	},
	{
		name: "A flood of commands",
		plays: (scene) =>
			scene.says(
				"owner",
				Array.from(
					{ length: 30 },
					(_, index) => `@yaqa-bot explain 1234567${index % 10}a${"".padEnd(Math.floor(index / 10), "b")}`,
				).join("\n"),
			),
		answers: 1,
		jobs: 0,
	},
	{
		name: "A stranger who goes on and on is not answered for ever",
		plays: async (scene) => {
			for (let round = 0; round < 12; round++) await scene.says("visitor", "@yaqa-bot ping");
		},
		answers: 10,
		jobs: 0,
	},
	{
		name: "Comments switched off",
		options: { configuration: { requests: { comments: false } } },
		plays: (scene) => scene.says("owner", "@yaqa-bot 8bit gguf"),
		answers: 0,
		jobs: 0,
	},
	{
		name: "A repo that is not watched",
		options: { configuration: { watch: { namespaces: ["somebody-else"] } } },
		plays: (scene) => scene.says("owner", "@yaqa-bot 8bit gguf"),
		answers: 0,
		jobs: 0,
	},
	{
		name: "On GitHub: the issue names the model, the bot marks the comment and edits one answer",
		options: {
			issue: { title: "Variants, please", body: "Model: owner/model\n\nWe would like to run it on laptops." },
		},
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf please");
			await scene.jobIs("running", "Rounding layer 12 of 24.");
			await scene.jobIs("done", "Done.");
			assert.deepEqual(scene.gitHub.breaches, []);
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "On GitHub: the line names the model, and what to type next does so too",
		options: { issue: { title: "Quantization" } },
		plays: async (scene) => {
			await scene.says("member", "@yaqa-bot quantize 8bit gguf owner/model");
			await scene.jobIs("done", "Done.");
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "On GitHub: the operator's configuration names the model, and the opening message is a comment too",
		options: { issue: { title: "An 8-bit file", body: "Hello!\n\n@yaqa-bot 8bit gguf", configured: true } },
		plays: async (scene) => {
			await scene.opens();
			await scene.jobIs("failed", "Out of memory.", {
				code: "out-of-memory",
				message: "The run needed more than 8 GiB.",
				remedy: "The operator can raise runner.memoryBytes.",
			});
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "On GitHub: nobody said which model",
		options: { issue: { title: "Quantization" } },
		plays: (scene) => scene.says("owner", "@yaqa-bot 8bit gguf"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "On GitHub: a model that the bot does not look after",
		options: { issue: { title: "Quantization" } },
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize 8bit gguf somebody/else"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "On GitHub: a private model is not talked about",
		options: { private: true, issue: { title: "Variants of owner/model" } },
		plays: (scene) => scene.says("owner", "@yaqa-bot status"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "On GitHub: somebody who may only read is refused, a person of the operator's list is not",
		options: {
			issue: { title: "Variants of owner/model" },
			configuration: { requests: { allow: ["visitor"], github: { allow: ["friend"] } } },
		},
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot 8bit gguf");
			await scene.says("friend", "@yaqa-bot 8bit gguf");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "On GitHub: a stranger's request waits for somebody who may write",
		options: { ...approval, issue: { title: "Variants of owner/model" } },
		plays: async (scene) => {
			await scene.says("visitor", "@yaqa-bot 8bit gguf");
			await scene.says("member", "@yaqa-bot approve");
		},
		answers: 2,
		jobs: 1,
	},
	{
		name: "On GitHub: an edited comment runs only what is new, a second delivery nothing",
		options: { issue: { title: "Variants of owner/model" } },
		plays: async (scene) => {
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.edits("owner", "@yaqa-bot 8bit gguf\n@yaqa-bot quantize onnx:q8");
			await scene.deliversAgain();
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "On GitHub: the answer arrived and its receipt was lost; it is not written twice",
		options: { issue: { title: "Variants of owner/model" } },
		plays: async (scene) => {
			scene.gitHub.arm("bad-gateway-after-accept");
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.deliversAgain();
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "On GitHub: a comment that no webhook told of is found",
		options: { issue: { title: "Variants of owner/model", body: "Nothing for the bot here." } },
		plays: async (scene) => {
			await scene.writes("owner", "@yaqa-bot 8bit gguf");
			await scene.looksOver();
			await scene.looksOver();
		},
		answers: 1,
		jobs: 1,
	},
	{
		name: "On GitHub: code, quotes, the bot itself and other bots: silence",
		options: { issue: { title: "Variants of owner/model" } },
		plays: async (scene) => {
			await scene.says("owner", "```\n@yaqa-bot 8bit gguf\n```\n> @yaqa-bot 8bit gguf");
			await scene.says("yaqa-bot", "@yaqa-bot 8bit gguf");
			await scene.says("metadata-bot", "@yaqa-bot 8bit gguf");
		},
		answers: 1,
		jobs: 0,
	},
	{
		name: "On GitHub: what was not understood is marked so",
		options: { issue: { title: "Variants of owner/model" } },
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize 7bit gguf"),
		answers: 1,
		jobs: 0,
	},
	{
		name: "On GitHub: a locked issue, then a deleted one: silence",
		options: { issue: { title: "Variants of owner/model" } },
		plays: async (scene) => {
			scene.locks();
			await scene.says("owner", "@yaqa-bot 8bit gguf");
			await scene.deletes("owner");
			await scene.deliversAgain();
		},
		answers: 0,
		jobs: 0,
	},
	{
		name: "On the Hub: a line that names another model",
		plays: (scene) => scene.says("owner", "@yaqa-bot quantize 8bit gguf somebody/else"),
		answers: 1,
		jobs: 0,
	},
];

/** Title → text of the file as it stands. */
function stored(): ReadonlyMap<string, string> {
	const sections = readFileSync(FILE, "utf8").split(/^## /m).slice(1);
	return new Map(
		sections.map((section) => {
			const end = section.indexOf("\n");
			return [section.slice(0, end), section.slice(end).trim()];
		}),
	);
}

let stage: Stage;
const played = new Map<string, string>();

before(async () => {
	stage = await openStage();
});
after(async () => {
	await stage.close();
	if (writes) {
		const parts = [
			"# What people write, and what the bot answers",
			"Written by the tests; every case is played against a local Hub. Machine-readable lines of the answers are left out.",
			...[...played].map(([name, text]) => `## ${name}\n\n${text}`),
		];
		writeFileSync(FILE, `${parts.join("\n\n")}\n`);
	}
});

for (const { name, options, plays, answers, jobs } of CASES) {
	test(name, async () => {
		const scene = await stage.scene(options);
		await plays(scene);
		if (answers >= 0) {
			const comments = await scene.botComments();
			assert.equal(comments.length, answers);
			for (const comment of comments) {
				assert.ok(comment.length <= MAXIMUM_COMMENT_CHARACTERS);
				assert.doesNotMatch(
					comment.replaceAll(/`[^`]*`/g, ""),
					/@(owner|member|visitor|friend|everyone)/,
					"nobody is called",
				);
			}
		}
		assert.equal((await scene.jobs()).length, jobs);
		const transcript = (await scene.transcript()).trim();
		played.set(name, transcript);
		if (!writes) assert.equal(transcript, stored().get(name));
	});
}
