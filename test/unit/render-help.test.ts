import assert from "node:assert/strict";
import { test } from "node:test";
import { renderHelp } from "../../src/commands/replies/render-help.ts";
import { HUB_WORDS } from "../../src/commands/replies/reply-context.ts";
import { RECIPE_NAMES } from "../../src/protocol/recipe-table.ts";

test("the help names every recipe whole", () => {
	const help = renderHelp({ ...HUB_WORDS, hubUrl: "https://hub.example", siteUrl: null, botName: "yaqa-bot" });
	for (const { name } of RECIPE_NAMES) assert.ok(help.includes(`\`${name}\``), name);
});
