import assert from "node:assert/strict";
import { test } from "node:test";
import { MAXIMUM_ANSWER_CHARACTERS, writeAnswer } from "../../src/commands/answer-text.ts";
import { COMMANDS } from "../../src/commands/command-table.ts";
import { namedInIssue } from "../../src/commands/github-subject.ts";
import type { ParsedCommand } from "../../src/commands/parse/parsed-command.ts";
import { MAXIMUM_COMMANDS, parseComment } from "../../src/commands/parse-comment.ts";
import { renderHelp } from "../../src/commands/replies/render-help.ts";
import { renderInvalid } from "../../src/commands/replies/render-misread.ts";
import { HUB_WORDS } from "../../src/commands/replies/reply-context.ts";
import { MAXIMUM_COMMENT_CHARACTERS } from "../../src/hub/discussion.ts";
import { parseRecipe } from "../../src/protocol/recipe.ts";

const GRAMMAR = { botName: "yaqa-bot", defaultRecipes: () => ["gguf:q4_0", "onnx:q4", "w4a16"] };
const CONTEXT = { ...HUB_WORDS, hubUrl: "https://hub.example", siteUrl: null, botName: "yaqa-bot" };
const ROUNDS = 50_000;

const PIECES = [
	"@yaqa-bot",
	"@yaqa-bot ",
	"@yaqa-bot: ",
	...COMMANDS.flatMap((command) => [command.name, ...command.aliases]).map((word) => `${word} `),
	"8bit ",
	"gguf ",
	"gguf:q8_0",
	"w4a16",
	",group=",
	"32",
	"3f2a91bc",
	"all ",
	"revision=",
	"calibration=",
	"private ",
	"bpw=3.5 ",
	"embedding=q8 ",
	"\n",
	"\n\n",
	"\r\n",
	"> ",
	"`",
	"```\n",
	"# ",
	"- ",
	"1. ",
	"<b>",
	"-->",
	"<!--",
	"<!-- yaqa-bot end of part -->",
	"[",
	"](",
	")",
	"*",
	"_",
	"~~",
	"\\",
	"|",
	"&lt;",
	"\u202E",
	"\u200B",
	"$(rm -rf /)",
	"$" + "{{ x }}",
	"'; drop table jobs; --",
	"@someone",
	"é",
	"😀",
	"\t",
	"    ",
	"recipe=",
	"bits=",
	"=",
	",",
	":",
	"1".repeat(40),
	"x".repeat(1100),
	"<div ",
	"~~~",
];

/** Numbers that are the same in every run, so that a failure can be looked at. */
function numbers(seed: number): (below: number) => number {
	let state = seed;
	return (below) => {
		state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
		return (state >>> 8) % below;
	};
}

/** The bot's own words, with its markers and trailer, are never a command to it; nobody else is called by name. */
function judge(text: string, commands: readonly ParsedCommand[]): void {
	assert.ok(commands.length <= MAXIMUM_COMMANDS + 1);
	for (const command of commands) {
		assert.match(command.key, /^[0-9a-f]{12}$/);
		if (command.kind === "quantize" || command.kind === "plan") {
			for (const recipe of command.recipes) {
				const parsed = parseRecipe(recipe);
				assert.ok(parsed.ok && parsed.recipe.canonical === recipe, `${JSON.stringify(text)} gave ${recipe}`);
			}
			if (command.revision !== null) assert.match(command.revision, /^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$/);
		}
		if (command.kind !== "invalid") continue;
		if (command.suggestion !== null) assert.match(command.suggestion, /^[A-Za-z0-9:=,._/ -]{1,80}$/);
		const told = renderInvalid(CONTEXT, command);
		assert.ok(told.length <= 4000, `${told.length} characters`);
		assert.ok(!/@(?!\u2060)(?!yaqa-bot)/.test(told), `${JSON.stringify(text)} calls somebody: ${told}`);
		assert.ok(!told.includes("<!--") && !told.includes("\u202E"), told);
	}
}

test(`${2 * ROUNDS} random and mutated comments: no crash, nothing invented, no answer too long`, () => {
	const random = numbers(12_345);
	const seeds = COMMANDS.flatMap((command) => command.examples.map((example) => `@yaqa-bot ${example.text}`));
	for (let round = 0; round < ROUNDS; round++) {
		let text = "";
		for (let length = random(14); length >= 0; length--) text += PIECES[random(PIECES.length)] ?? "";
		judge(text, parseComment(text, GRAMMAR));

		let mutated = seeds[random(seeds.length)] ?? "";
		for (let edits = random(4); edits >= 0; edits--) {
			const at = random(mutated.length + 1);
			const piece = PIECES[random(PIECES.length)] ?? "";
			const code = random(3) === 0 ? String.fromCharCode(32 + random(700)) : piece;
			mutated = `${mutated.slice(0, at)}${code}${mutated.slice(at + random(3))}`;
		}
		const commands = parseComment(mutated, GRAMMAR);
		judge(mutated, commands);
		if (round % 50 === 0) {
			const sections = commands.map((command) => ({
				key: command.key,
				request: null,
				lasting: false,
				text: command.kind === "invalid" ? renderInvalid(CONTEXT, command) : renderHelp(CONTEXT),
			}));
			const trailer = { v: 1, comment: "c", request: null, state: "answered", ran: [], waiting: [] } as const;
			const answer = writeAnswer({ sections, trailer: { ...trailer, ran: [], waiting: [] } });
			assert.ok(answer.length <= MAXIMUM_COMMENT_CHARACTERS);
			assert.deepEqual(parseComment(answer, { ...GRAMMAR, botName: "yaqa-bot" }), []);
		}
	}
});

test(`nothing runs from quotes and code, whatever is in them (${2 * ROUNDS} comments)`, () => {
	const random = numbers(54_321);
	for (let round = 0; round < Math.ceil((2 * ROUNDS) / 3); round++) {
		let text = "";
		for (let length = random(10); length >= 0; length--) text += PIECES[random(PIECES.length)] ?? "";
		// A real command in every fourth, wherever it falls.
		if (round % 4 === 0) text = `${text}\n@yaqa-bot 8bit gguf\n${PIECES[random(PIECES.length)] ?? ""}`;
		const lines = text.split(/\r\n|\n|\r/);
		const quote = lines.map((line) => `> ${line}`).join("\n");
		assert.deepEqual(parseComment(quote, GRAMMAR), [], JSON.stringify(quote));
		const tildes = "~".repeat(60);
		const fence = `${tildes}\n${lines.join("\n")}\n${tildes}`;
		assert.deepEqual(parseComment(fence, GRAMMAR), [], JSON.stringify(fence));
		const indented = lines.map((line) => `    ${line}`).join("\n");
		assert.deepEqual(parseComment(indented, GRAMMAR), [], JSON.stringify(indented));
	}
});

test("an answer made of the largest parts stays within what the Hub takes", () => {
	const sections = Array.from({ length: 200 }, (_, index) => ({
		key: `k${index}`,
		request: null,
		lasting: true,
		text: "A line of a table | with cells |\n".repeat(2000),
	}));
	const key = "0123456789ab";
	const answer = writeAnswer({
		sections,
		trailer: {
			v: 1,
			comment: "c".repeat(100),
			request: null,
			state: "done",
			ran: Array.from({ length: 60 }, () => key),
			waiting: Array.from({ length: 60 }, () => key),
		},
	});
	assert.ok(answer.length <= MAXIMUM_COMMENT_CHARACTERS, `${answer.length} characters`);
	assert.ok(answer.length > MAXIMUM_ANSWER_CHARACTERS / 2);
});

/** One or more of each construct of CommonMark and GFM, as small as it can be: repeated, each may cost the parser most. */
const CONSTRUCTS = [
	...[
		"~~a",
		"~a",
		"~~a~",
		"*a",
		"**a",
		"_a",
		"__a ",
		"*a_",
		"***a",
		"a**",
		"`a",
		"``a`",
		"[a",
		"[a]",
		"[a](",
		"[a](b",
		"![a",
	],
	...[
		"[a]: b",
		"[^a]",
		"[^a]: b",
		"<a",
		"<a ",
		"<!--",
		"<?",
		"<!A",
		"<![CDATA[",
		"</a",
		"&amp",
		"&#x1",
		"\\",
		"\\*",
		"$a",
	],
	...["> ", "> a", "- ", "- a", "1. ", "1) a", "# ", "#", "a\n=", "a\n-", "***\n", "```\n", "~~~\n", "    a\n", "\ta"],
	...[
		"| a",
		"|a|\n|-|\n",
		"| - ",
		"- [ ] ",
		"- [x]",
		"www.",
		"www.a",
		"http://",
		"https://a",
		"a@b",
		"a@b.c",
		"a@",
		"@a ",
		"@yaqa-bot ",
	],
	...[
		"\n",
		"\r\n",
		"\r",
		" \n",
		"  \n",
		"\t\n",
		" ",
		"\t",
		"\u00a0",
		"\uFFFC",
		"]",
		")",
		"](",
		"}",
		"*",
		"_",
		"~",
		"`",
		"<",
		"|",
		":",
	],
	...["a\n\n", "a\n", "1", "model: a/b\n", "**model**: ", "a b ", "@yaqa-bot 8bit gguf\n", "revision=", "=", ","],
];

/** Processor time of one call, the least of some: what else runs on the machine makes it longer, never shorter. */
function cost(work: () => unknown): number {
	let least = Number.POSITIVE_INFINITY;
	for (let round = 0; round < 3; round++) {
		const begun = process.cpuUsage();
		work();
		const { user, system } = process.cpuUsage(begun);
		least = Math.min(least, user + system);
	}
	return least;
}

test("no construct of Markdown makes the time of a comment grow with the square of its length", () => {
	const thread = (text: string) => ({ title: text, comments: [{ text }] });
	const readers = {
		parser: (text: string) => parseComment(text, GRAMMAR),
		subject: (text: string) => namedInIssue(thread(text)),
	};
	const slow: string[] = [];
	for (const construct of CONSTRUCTS) {
		const of = (length: number) => construct.repeat(Math.ceil(length / construct.length)).slice(0, length);
		for (const [name, reader] of Object.entries(readers)) {
			const [short, long] = [of(8_000), of(64_000)];
			reader(short);
			const [little, much] = [cost(() => reader(short)), cost(() => reader(long))];
			// Eight times the text: eight times the time, and some; the square would be 64 times. Below a tenth of a second
			// nothing is measured that matters.
			if (much > 100_000 && much > 30 * little)
				slow.push(`${name} of ${JSON.stringify(construct)}: ${little} to ${much} µs`);
			if (much > 2_500_000) slow.push(`${name} of ${JSON.stringify(construct)}: ${much} µs`);
		}
	}
	assert.deepEqual(slow, []);
});
