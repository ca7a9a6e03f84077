import assert from "node:assert/strict";
import { test } from "node:test";
import { COMMANDS } from "../../src/commands/command-table.ts";
import type { ParsedCommand } from "../../src/commands/parse/parsed-command.ts";
import { noWords, TOKEN_RULES } from "../../src/commands/parse/token-rules.ts";
import { MAXIMUM_COMMANDS, parseComment } from "../../src/commands/parse-comment.ts";
import { MAXIMUM_COMMENT_CHARACTERS } from "../../src/hub/discussion.ts";

const GRAMMAR = { botName: "yaqa-bot", defaultRecipes: () => ["gguf:q4_0", "onnx:q4", "w4a16"] };

/** What a comment comes to, in brief: `quantize a b`, `status`, `help`, `invalid: … → suggestion`. */
function brief(markdown: string): string[] {
	return parseComment(markdown, GRAMMAR).map((command) => {
		const of = command.model === null || command.kind === "invalid" ? "" : ` of ${command.model}`;
		return `${briefOf(command)}${of}`;
	});
}

function briefOf(command: ParsedCommand): string {
	if (command.kind === "quantize" || command.kind === "plan") {
		const at = command.revision === null ? [] : [`@${command.revision}`];
		return [command.kind, ...command.recipes, ...at].join(" ");
	}
	if (command.kind === "cancel" || command.kind === "retry" || command.kind === "explain") {
		return command.target === null ? command.kind : `${command.kind} ${command.target}`;
	}
	if (command.kind !== "invalid") return command.kind;
	return command.suggestion === null ? "invalid" : `invalid → ${command.suggestion}`;
}

const TRANSCRIPTS: readonly (readonly [string, string, readonly string[]])[] = [
	["the issue's own example", "@yaqa-bot quantize 8bit gguf", ["quantize gguf:q8_0"]],
	["bits a weight on average", "@yaqa-bot quantize bpw=3.50", ["quantize gguf,bpw=3.5"]],
	["a budget of bytes", "@yaqa-bot quantize bytes=4500MB", ["quantize gguf,bytes=4.5gb"]],
	["a budget as people write it", "@yaqa-bot quantize gguf 4.5 GB please", ["quantize gguf,bytes=4.5gb"]],
	["a budget in a recipe", "@yaqa-bot quantize gguf,bytes=4.5GiB,tune=off", ["quantize gguf,bytes=4.5gib,tune=off"]],
	["a mix as a recipe", "@yaqa-bot quantize gguf,bpw=4,refine=0 w4a16", ["quantize gguf,bpw=4,refine=0 w4a16"]],
	["an exact recipe", "@yaqa-bot quantize recipe=gguf:q8_0", ["quantize gguf:q8_0"]],
	["the short form", "@yaqa-bot 4bit gguf please", ["quantize gguf:q4_0"]],
	[
		"capitals, colon, polite words",
		"@YAQA-Bot: Please quantize this model to 8-bit GGUF, thanks!",
		["quantize gguf:q8_0"],
	],
	["a space before bit", "@yaqa-bot 8 bit onnx", ["quantize onnx:q8"]],
	["bits alone mean every usual container", "@yaqa-bot 8bit", ["quantize gguf:q8_0 onnx:q8 w8a16"]],
	["a container alone means the usual bits", "@yaqa-bot quantize onnx", ["quantize onnx:q4"]],
	["a runtime for a container", "@yaqa-bot 4bit for ollama", ["quantize gguf:q4_0"]],
	["a bare GGUF type", "@yaqa-bot q8_0", ["quantize gguf:q8_0"]],
	["recipes with options", "@yaqa-bot quantize w4a16,group=32 onnx:q4", ["quantize w4a16,group=32 onnx:q4"]],
	["an option that stands alone", "@yaqa-bot quantize w4a16 group=32", ["quantize w4a16,group=32"]],
	["several bits", "@yaqa-bot quantize onnx bits=4,8", ["quantize onnx:q4 onnx:q8"]],
	["quantize alone asks for the defaults", "@yaqa-bot quantize", ["quantize"]],
	["nothing after the mention", "@yaqa-bot", ["help"]],
	["small talk", "@yaqa-bot thank you!", ["help"]],
	["thanks for what is there", "@yaqa-bot thanks for the 4bit gguf!", ["invalid → quantize gguf:q4_0"]],
	["a question about a file", "@yaqa-bot did you make the gguf?", ["invalid → quantize gguf:q4_0"]],
	["a question about a recipe", "@yaqa-bot what is w4a16", ["invalid → quantize w4a16"]],
	["a report", "@yaqa-bot the 4bit gguf did fail", ["invalid → quantize gguf:q4_0"]],
	["a question about a job", "@yaqa-bot did you cancel it?", ["help"]],
	["a question that asks for the status", "@yaqa-bot how is it going?", ["status"]],
	["an order that ends in thanks", "@yaqa-bot 4bit gguf please, thank you!", ["quantize gguf:q4_0"]],
	["a polite order", "@yaqa-bot can you make a 4bit gguf?", ["quantize gguf:q4_0"]],
	["a mail signature below", "@yaqa-bot quantize 8bit gguf\n-- \nAnn\n", ["quantize gguf:q8_0"]],
	["a rule below", "@yaqa-bot status\n---\nSent from my phone", ["status"]],
	["a heading is none", "## @yaqa-bot quantize 8bit gguf", []],
	["status among words", "@yaqa-bot status please", ["status"]],
	["help", "@yaqa-bot help", ["help"]],
	["two commands in order", "Hello.\n\n@yaqa-bot status\n@yaqa-bot 8bit gguf\n", ["status", "quantize gguf:q8_0"]],
	["in a list", "- @yaqa-bot status\n- @yaqa-bot help", ["status", "help"]],
	["emphasis is still text", "**@yaqa-bot quantize 8bit gguf**", ["quantize gguf:q8_0"]],
	["a mention in passing", "I asked @yaqa-bot quantize 8bit gguf yesterday", []],
	["another account", "@yaqa-bot2 quantize 8bit gguf\n\n@yaqa-bot-fan help", []],
	["a block quote", "> @yaqa-bot quantize 8bit gguf\n\nDid that work?", []],
	["a nested quote in a list", "- > @yaqa-bot quantize 8bit gguf", []],
	["a fenced block", "```\n@yaqa-bot quantize 8bit gguf\n```", []],
	["an unclosed fence", "~~~\n@yaqa-bot quantize 8bit gguf", []],
	["an indented block", "text\n\n    @yaqa-bot quantize 8bit gguf", []],
	["inline code", "`@yaqa-bot quantize 8bit gguf`", []],
	["a long line in an indented block", `    ${"1".repeat(60)}\n    @yaqa-bot help`, []],
	["a fence with a long first line", `\`\`\`${"x".repeat(2000)}\n@yaqa-bot help\n\`\`\``, []],
	["a tilde fence in a deep quote", `${"> ".repeat(30)}text\n@yaqa-bot help`, []],
	["an HTML comment with a long first line", `<!-- ${"x".repeat(2000)}\n@yaqa-bot help\n-->`, []],
	["an HTML block with a long first line", `<div class="${"x".repeat(2000)}">\n@yaqa-bot help\n</div>`, []],
	["a long quoted line and its continuation", `> ${"x".repeat(2000)}\n@yaqa-bot help`, []],
	["a long line of one's own before a command", `${"x".repeat(2000)}\n@yaqa-bot help`, ["help"]],
	["a heading", "# @yaqa-bot quantize 8bit gguf", []],
	["an HTML comment", "<!-- @yaqa-bot quantize 8bit gguf -->", []],
	["an HTML block", "<div>\n@yaqa-bot quantize 8bit gguf\n</div>", []],
	["a link's text", "[@yaqa-bot quantize 8bit gguf](https://example.com)", []],
	["a table", "| a |\n|---|\n| @yaqa-bot quantize 8bit gguf |", []],
	["struck through", "~~@yaqa-bot quantize 8bit gguf~~", []],
	["code inside a command is not guessed at", "@yaqa-bot quantize `gguf:q8_0`", ["invalid"]],
	["a typo in a container", "@yaqa-bot quantize 8bit guf", ["invalid → quantize 8bit gguf"]],
	["a typo in a command", "@yaqa-bot stauts", ["invalid → status"]],
	["a typo in a recipe", "@yaqa-bot gguf:q8_1", ["invalid → gguf:q8_0"]],
	["bits that no container has", "@yaqa-bot quantize 7bit gguf", ["invalid → quantize 8bit gguf"]],
	["an option's name with a typo", "@yaqa-bot quantize fromat=gguf 8bit", ["invalid → quantize format=gguf 8bit"]],
	["a format that others write", "@yaqa-bot 4bit awq", ["invalid → 4bit vllm"]],
	["four-bit floats", "@yaqa-bot quantize nvfp4 mxfp4 fp8", ["quantize nvfp4 mxfp4 fp8"]],
	["a format of Macs", "@yaqa-bot mlx 4bit", ["quantize mlx:4bit"]],
	["its recipe in short", "@yaqa-bot mlx:8,group=32", ["quantize mlx:8bit,group=32"]],
	["short words are near few others", "@yaqa-bot exl3", ["invalid → gguf"]],
	["nothing is near", "@yaqa-bot xyz", ["invalid"]],
	["an option of the last recipe", "@yaqa-bot quantize 4bit onnx embedding=q8", ["quantize onnx:q4,embedding=q8"]],
	["bits a weight as people write them", "@yaqa-bot quantize 3.5 bpw gguf", ["quantize gguf,bpw=3.5"]],
	["a branch in words", "@yaqa-bot quantize 8bit gguf from branch Dev", ["quantize gguf:q8_0 @Dev"]],
	["a group in short", "@yaqa-bot w4a16 g32", ["quantize w4a16,group=32"]],
	["all of the usual", "@yaqa-bot quantize everything", ["quantize"]],
	["a question how it goes", "@yaqa-bot how is it going?", ["status"]],
	["a question what it can do", "@yaqa-bot what can you do?", ["help"]],
	["right-to-left marks within", "@yaqa-bot quantize 8bit \u202Efugg", ["invalid"]],
	["a model in the line", "@yaqa-bot quantize 8bit gguf Acme/Llama-3", ["quantize gguf:q8_0 of Acme/Llama-3"]],
	["a model as an option", "@yaqa-bot status model=Acme/Llama-3", ["status of Acme/Llama-3"]],
	["a model alone", "@yaqa-bot Acme/Llama-3", ["invalid → quantize 8bit gguf Acme/Llama-3"]],
	["two models", "@yaqa-bot quantize 8bit a/b c/d", ["invalid"]],
	["two containers with a slash are no model", "@yaqa-bot quantize 8bit gguf/onnx", ["invalid"]],
	["a group that does not exist", "@yaqa-bot quantize w4a16,group=31", ["invalid"]],
	["a budget in the middle of words", "@yaqa-bot I want a gguf that fits in 900 MiB!", ["quantize gguf,bytes=900mib"]],
	["a budget without its unit", "@yaqa-bot quantize gguf bytes=4.5", ["invalid"]],
	["bits and a budget", "@yaqa-bot quantize 4bit gguf bytes=4GB", ["invalid"]],
	["two kinds of budget", "@yaqa-bot quantize gguf,bpw=4,bytes=4GB", ["invalid"]],
	["a budget for a container without types", "@yaqa-bot quantize onnx 4GB", ["invalid → quantize gguf bytes=4gb"]],
	["a budget that is none", "@yaqa-bot quantize onnx bytes=$(id)", ["invalid"]],
	["a question", "@yaqa-bot why did it fail?", ["explain"]],
	[
		"every unknown word is named and the whole line mended",
		"@yaqa-bot quantise 8bit guf onxx",
		["invalid → quantise 8bit gguf onnx"],
	],
	["a plan", "@yaqa-bot plan 8bit gguf", ["plan gguf:q8_0"]],
	["format and bits as options", "@yaqa-bot quantize bits=4,8 format=onnx", ["quantize onnx:q4 onnx:q8"]],
	[
		"a revision keeps its capitals",
		"@yaqa-bot quantize 8bit gguf revision=Release/V1",
		["quantize gguf:q8_0 @Release/V1"],
	],
	["a revision that is none", "@yaqa-bot quantize 8bit gguf revision=../../etc", ["invalid"]],
	["an option twice", "@yaqa-bot quantize 8bit gguf revision=a revision=b", ["invalid"]],
	["cancel", "@yaqa-bot cancel", ["cancel"]],
	["cancel a job", "@yaqa-bot please cancel job 3f2a91bc", ["cancel 3f2a91bc"]],
	["cancel all", "@yaqa-bot stop all", ["cancel all"]],
	["explain a variant", "@yaqa-bot explain q8_0", ["explain gguf:q8_0"]],
	["retry, approve, ping", "@yaqa-bot retry\n@yaqa-bot approve\n@yaqa-bot ping", ["retry", "approve", "ping"]],
	["a job's number makes no quantization", "@yaqa-bot quantize 3f2a91bc", ["invalid → status"]],
	["right-to-left marks around a command", "\u202E@yaqa-bot quantize 8bit gguf", []],
	["copied with invisible joiners", "@\u2060yaqa-bot status", ["status"]],
	["Windows line ends", "@yaqa-bot status\r\n@yaqa-bot help\r\n", ["status", "help"]],
];

for (const [name, markdown, expected] of TRANSCRIPTS) {
	test(`a comment: ${name}`, () => {
		assert.deepEqual(brief(markdown), expected);
	});
}

test("every example of the command table is understood as its command", () => {
	for (const command of COMMANDS) {
		for (const example of command.examples) {
			const [parsed, ...more] = parseComment(`@yaqa-bot ${example.text}`, GRAMMAR);
			assert.equal(parsed?.kind, command.name, example.text);
			assert.equal(more.length, 0);
		}
	}
});

test("the bot's name is configurable", () => {
	const grammar = { ...GRAMMAR, botName: "Quanty" };
	assert.equal(parseComment("@quanty status", grammar)[0]?.kind, "status");
	assert.equal(parseComment("@yaqa-bot status", grammar).length, 0);
});

test("a flood of commands is cut off and said to be", () => {
	const commands = parseComment("@yaqa-bot help\n".repeat(50), GRAMMAR);
	assert.equal(commands.length, MAXIMUM_COMMANDS + 1);
	assert.equal(commands.at(-1)?.kind, "invalid");
});

test("a comment longer than the Hub allows is not read", () => {
	assert.deepEqual(brief(`@yaqa-bot help\n${"x".repeat(MAXIMUM_COMMENT_CHARACTERS)}`), []);
});

test("hostile Markdown costs bounded time and does not hide the command before it", () => {
	const room = MAXIMUM_COMMENT_CHARACTERS - 30;
	const fill = (text: string): string => text.repeat(Math.floor(room / text.length));
	for (const text of [
		"[",
		">",
		"- ",
		"[a]\n",
		"[a](",
		"*a **b ",
		"> a\n",
		"<a ",
		"1. a\n",
		"*\n",
		"`".repeat(50),
		"[^a]\n",
		"![",
		"|a|\n|-|\n",
		`${">".repeat(19)}a\n`,
		"        - a\n",
	]) {
		const started = performance.now();
		const commands = parseComment(`@yaqa-bot help\n\n${fill(text)}`, GRAMMAR);
		const milliseconds = performance.now() - started;
		assert.equal(commands[0]?.kind, "help", JSON.stringify(text));
		// Measured below 0.8 s on an idle core; without the bounds some of these take 10 s and more.
		assert.ok(milliseconds < 8000, `${JSON.stringify(text)} took ${milliseconds} ms`);
	}
});

test("every token rule is the first to take its own example", () => {
	for (const rule of TOKEN_RULES) {
		const words = noWords();
		const first = TOKEN_RULES.find((candidate) => candidate.take(rule.example, words));
		assert.equal(first?.name, rule.name, rule.example);
	}
});
