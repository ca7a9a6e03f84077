import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parse } from "yaml";
import { editList } from "../../src/config/edit-list.ts";

const place = { section: "watch", key: "namespaces" } as const;

function edited(text: string, names: readonly string[], add = true): string {
	const edit = editList(text, place, names, add);
	assert.ok(edit.ok, `${edit.ok ? "" : edit.message}\n${text}`);
	return edit.text;
}

test("a name comes into the list however it is written, and every other byte stays", () => {
	for (const [before, after] of [
		["", "watch:\n  namespaces: [lab]\n"],
		["# only a comment", "# only a comment\nwatch:\n  namespaces: [lab]\n"],
		["hub: {url: x}   # odd   spaces\n", "hub: {url: x}   # odd   spaces\nwatch:\n  namespaces: [lab]\n"],
		["watch:\n", "watch:\n  namespaces: [lab]\n"],
		["watch: # what\nhub: {}\n", "watch: # what\n  namespaces: [lab]\nhub: {}\n"],
		["watch:\n    repos: [a/b]\n", "watch:\n    namespaces: [lab]\n    repos: [a/b]\n"],
		["watch:\n  namespaces: []  # none\n", "watch:\n  namespaces: [lab]  # none\n"],
		["watch:\n  namespaces: # none\n", "watch:\n  namespaces: [lab] # none\n"],
		["watch:\n  namespaces: [ 'a' , b ] # two\n", "watch:\n  namespaces: [ 'a' , b, lab ] # two\n"],
		["watch: {namespaces: [a], repos: []}\n", "watch: {namespaces: [a, lab], repos: []}\n"],
		["watch: {repos: []}\n", "watch: {namespaces: [lab], repos: []}\n"],
		[
			"watch:\n  namespaces:\n    - a # first\n    # between\n    - b # last\n  repos: []\n",
			"watch:\n  namespaces:\n    - a # first\n    # between\n    - b # last\n    - lab\n  repos: []\n",
		],
		["watch:\n  namespaces:\n  - a", "watch:\n  namespaces:\n  - a\n  - lab"],
		["watch:\r\n  namespaces:\r\n    - a\r\n", "watch:\r\n  namespaces:\r\n    - a\r\n    - lab\r\n"],
		["watch:\n  namespaces: [\n    a,\n    b,\n  ]\n", "watch:\n  namespaces: [\n    a,\n    b, lab,\n  ]\n"],
	] as const) {
		assert.equal(edited(before, ["lab"]), after);
		assert.equal(edited(after, ["lab"]), after, "twice is once");
	}
});

test("a name goes out of the list, the last one too", () => {
	for (const [before, after] of [
		["watch:\n  namespaces: [a, lab, b]\n", "watch:\n  namespaces: [a, b]\n"],
		["watch:\n  namespaces: [lab, b] # two\n", "watch:\n  namespaces: [b] # two\n"],
		["watch:\n  namespaces: [a, lab]\n", "watch:\n  namespaces: [a]\n"],
		['watch:\n  namespaces: [ "lab" ]\n', "watch:\n  namespaces: [  ]\n"],
		["watch:\n  namespaces:\n    - a\n    - lab # ours\n    - b\n", "watch:\n  namespaces:\n    - a\n    - b\n"],
		[
			"watch:\n  namespaces:\n    # ours\n    - lab\n  repos: []\n",
			"watch:\n  namespaces: []\n    # ours\n  repos: []\n",
		],
		["watch:\n  namespaces:\n  - lab", "watch:\n  namespaces: []\n"],
	] as const) {
		assert.equal(edited(before, ["lab"], false), after);
		assert.equal(edited(before, ["nobody"], false), before);
	}
});

test("names that YAML would read as something else are quoted", () => {
	for (const name of ["123", "1e5", "true", "null", "0x1F", "1.5", "no"]) {
		const value: unknown = parse(edited("watch:\n  namespaces: [a]\n", [name]));
		assert.deepEqual(value, { watch: { namespaces: ["a", name] } });
		assert.equal(edited(edited("watch:\n  namespaces: [a]\n", [name]), [name], false), "watch:\n  namespaces: [a]\n");
	}
});

test("a list in a form that is not known is left alone", () => {
	for (const text of [
		"a: &l [x]\nwatch:\n  namespaces: *l\n",
		"watch: 7\n",
		"- a\n",
		"watch: [unclosed\n",
		"a: 1\n---\nb: 2\n",
		"watch:\n  namespaces: some\n",
	]) {
		assert.equal(editList(text, place, ["lab"], true).ok, false, text);
	}
});

test("the documented default takes names and gives them back byte for byte", () => {
	const text = readFileSync(new URL("../../config/yaqa-bot.yaml", import.meta.url), "utf8");
	const names = ["one", "two", "3"];
	assert.equal(edited(edited(text, names), names, false), text);
});
