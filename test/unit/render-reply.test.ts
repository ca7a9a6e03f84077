import assert from "node:assert/strict";
import { test } from "node:test";
import { HUB_WORDS, renderHelp } from "../../src/commands/render-reply.ts";
import { RECIPE_NAMES } from "../../src/protocol/recipe.ts";

test("the help names every recipe whole", () => {
	const help = renderHelp({ ...HUB_WORDS, hubUrl: "https://hub.example", siteUrl: null, botName: "yaqa-bot" });
	for (const { name } of RECIPE_NAMES) assert.ok(help.includes(`\`${name}\``), name);
});
