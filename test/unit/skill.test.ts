import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { parseComment } from "../../src/commands/parse-comment.ts";

const TEXT = readFileSync(join(import.meta.dirname, "../../skills/yaqa-bot/SKILL.md"), "utf8");

test("the agent skill has the head that agents read: its folder's name, and when to use it", () => {
	const head = /^---\n([\s\S]*?)\n---\n/.exec(TEXT)?.[1] ?? "";
	const { name, description } = parse(head) as { name: string; description: string };
	assert.equal(name, "yaqa-bot");
	assert.match(description, /Use when/);
	assert.ok(description.length <= 1024);
});

test("every command that the skill shows is one that the bot understands", () => {
	const commands = [...TEXT.matchAll(/[`"](@quant-bot [^`"]+)[`"]/g)].map(([, command = ""]) => command);
	assert.ok(commands.length >= 11, commands.join("\n"));
	const grammar = { botName: "quant-bot", defaultRecipes: () => ["gguf:q4_0"] };
	for (const command of commands) {
		const [parsed, more] = parseComment(command, grammar);
		assert.ok(parsed !== undefined && parsed.kind !== "invalid" && more === undefined, command);
	}
});
