import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigurationFile } from "../../src/config/schema.ts";
import { checkOwnerSettings } from "../../src/jobs/owner-settings.ts";
import { checkHours, checkToldKind, maximumParameters, recipesOfRules } from "../../src/jobs/watch-rules.ts";

const open = (settings: string | null) => ({ settings, closed: false });

test("without a word from the owner the operator's rules count", () => {
	assert.deepEqual(checkOwnerSettings(open(null), true), { ok: true, recipes: null });
	assert.deepEqual(checkOwnerSettings(open(""), true), { ok: true, recipes: null });
});

test("the owner's file chooses the recipes", () => {
	const verdict = checkOwnerSettings(open("recipes: [gguf:q8_0, 'w4a16,group=32']"), true);
	assert.ok(verdict.ok);
	assert.deepEqual(
		verdict.recipes?.map((recipe) => recipe.canonical),
		["gguf:q8_0", "w4a16,group=32"],
	);
});

test("the owner's no counts for pushes, by file or by closing the discussion, and not against their own comments", () => {
	for (const owner of [open("enabled: false"), { settings: null, closed: true }]) {
		const verdict = checkOwnerSettings(owner, true);
		assert.equal(verdict.ok ? null : verdict.refusal.code, "opted-out");
		assert.equal(checkOwnerSettings(owner, false).ok, true);
	}
});

for (const [name, text, told] of [
	["an unknown setting", "enable: false", /enable/],
	["an unknown recipe", "recipes: [gguf:q9_9]", /q9_9.*Did you mean/],
	["no YAML", "recipes: [", /not YAML/],
	["a list", "- a", /The file/],
	["an alias bomb", "a: &a [x]\nrecipes: [*a, *a]", /aliases|recipes/],
	["a huge file", `# ${"x".repeat(20_000)}`, /larger/],
] as const) {
	test(`a file with ${name} is refused with the reason`, () => {
		const verdict = checkOwnerSettings(open(text), true);
		assert.ok(!verdict.ok);
		assert.equal(verdict.refusal.code, "bad-settings");
		assert.match(verdict.refusal.message, told);
	});
}

test("rules limit by size, tags and hours", () => {
	const { watch } = ConfigurationFile.parse({
		watch: {
			namespaces: ["acme"],
			recipes: ["gguf:q4_0"],
			rules: [
				{
					match: "acme/told",
					pipelineTags: ["text-generation"],
					architectures: ["LlamaForCausalLM", "Qwen3ForCausalLM"],
				},
				{ match: "acme/big-*", maxParameters: 5, tags: { any: ["chat"], none: ["merge"] }, hours: "22:00-06:00" },
				{ match: "acme/day", hours: "08:00-18:00", recipes: ["w4a16"] },
			],
		},
	});
	const at = (time: string) => new Date(`2026-01-01T${time}:00Z`);
	const judged = (repo: string, time: string) => checkHours(watch, repo, at(time)).watched;
	assert.equal(maximumParameters(watch, "acme/big-1"), 5);
	assert.equal(maximumParameters(watch, "acme/other"), 8_000_000_000);
	assert.deepEqual(
		["21:59", "22:00", "23:30", "05:59", "06:00"].map((time) => judged("acme/big-1", time)),
		[false, true, true, true, false],
	);
	assert.deepEqual(
		["07:59", "08:00", "18:00"].map((time) => judged("acme/day", time)),
		[false, true, false],
	);
	assert.equal(judged("acme/other", "12:00"), true);
	const tagged = (...tags: string[]) =>
		checkToldKind(watch, "acme/big-1", { tags, pipelineTag: null, architectures: [] }).watched;
	assert.deepEqual([tagged("chat"), tagged("chat", "merge"), tagged("base")], [true, false, false]);
	const kind = (pipelineTag: string | null, ...architectures: string[]) =>
		checkToldKind(watch, "acme/told", { tags: [], pipelineTag, architectures });
	assert.ok(kind("text-generation", "LlamaForCausalLM").watched);
	assert.deepEqual(kind("text-generation", "ViTModel"), {
		watched: false,
		reason: "It has none of the architectures LlamaForCausalLM, Qwen3ForCausalLM.",
	});
	for (const tag of ["image-classification", null]) {
		const found = kind(tag, "LlamaForCausalLM");
		assert.ok(!found.watched && /pipeline tags text-generation/.test(found.reason));
	}
	assert.deepEqual(
		recipesOfRules(watch, "acme/big-1").map((recipe) => recipe.canonical),
		["gguf:q4_0"],
	);
});
