import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { fromMarkdown } from "mdast-util-from-markdown";
import { gfmFromMarkdown } from "mdast-util-gfm";
import { gfm } from "micromark-extension-gfm";
import { DOCUMENTS, withTables } from "../../scripts/reference-tables.ts";
import { ENVIRONMENT_OVERRIDES } from "../../src/config/load.ts";
import { SECRET_VARIABLES } from "../../src/config/secrets.ts";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const documents = [
	"README.md",
	"CONTRIBUTING.md",
	"SECURITY.md",
	"deploy/README.md",
	"gpu-runner/README.md",
	...readdirSync(join(root, "docs"))
		.filter((name) => name.endsWith(".md"))
		.map((name) => `docs/${name}`),
];

type Node = {
	readonly type: string;
	readonly url?: string;
	readonly value?: string;
	readonly children?: readonly Node[];
};

function nodesOf(node: Node, type: string): readonly Node[] {
	return [...(node.type === type ? [node] : []), ...(node.children ?? []).flatMap((child) => nodesOf(child, type))];
}

function treeOf(path: string): Node {
	const text = readFileSync(join(root, path), "utf8");
	return fromMarkdown(text, { extensions: [gfm()], mdastExtensions: [gfmFromMarkdown()] });
}

function textOf(node: Node): string {
	return node.value ?? (node.children ?? []).map(textOf).join("");
}

/** The names that a heading can be linked by, as GitHub makes them. */
function anchorsOf(path: string): ReadonlySet<string> {
	return new Set(
		nodesOf(treeOf(path), "heading").map((heading) =>
			textOf(heading)
				.toLowerCase()
				.replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
				.trim()
				.replaceAll(" ", "-"),
		),
	);
}

for (const path of documents) {
	test(`every link of ${path} leads somewhere`, () => {
		const wrong = ["link", "image", "definition"]
			.flatMap((type) => nodesOf(treeOf(path), type))
			.flatMap(({ url = "" }) => {
				if (/^[a-z]+:/.test(url)) return [];
				const [file = "", anchor] = url.split("#");
				const target = file === "" ? path : relative(root, resolve(root, dirname(path), file));
				if (target.startsWith("..") || !existsSync(join(root, target))) return [url];
				return anchor === undefined || anchorsOf(target).has(anchor) ? [] : [url];
			});
		assert.deepEqual(wrong, []);
	});
}

test("the README leads to every document", () => {
	const linked = new Set(nodesOf(treeOf("README.md"), "link").map(({ url = "" }) => url.split("#")[0]));
	assert.deepEqual(
		documents.filter((path) => path.startsWith("docs/") && !linked.has(path)),
		[],
	);
});

for (const path of Object.keys(DOCUMENTS)) {
	test(`the tables of ${path} are what \`npm run reference\` writes`, () => {
		const text = readFileSync(join(root, path), "utf8");
		assert.equal(text, withTables(path, text));
	});
}

test("docs/configuration.md names every environment variable", () => {
	const text = readFileSync(join(root, "docs/configuration.md"), "utf8");
	const variables = [
		...Object.values(SECRET_VARIABLES).flat(),
		...ENVIRONMENT_OVERRIDES.map(({ variable }) => variable),
		"YAQA_BOT_CONFIG",
	];
	assert.deepEqual(
		variables.filter((variable) => !text.includes(`\`${variable}\``)),
		[],
	);
});

test("every test that docs/promises.md names is there, and 22 promises are made or said not to be", () => {
	const text = readFileSync(join(root, "docs/promises.md"), "utf8");
	const named = [...text.matchAll(/`(test\/[^`]+\.ts)`: "([^"]+)"/g)];
	const missing = named.filter(([, file = "", title = ""]) => {
		const path = join(root, file);
		return !existsSync(path) || !readFileSync(path, "utf8").includes(title);
	});
	assert.deepEqual(
		missing.map(([whole]) => whole),
		[],
	);
	const rows = [...text.matchAll(/^\| (\d+) \| .* \|$/gm)];
	assert.deepEqual(
		rows.map(([, number]) => Number(number)),
		Array.from({ length: 22 }, (_, index) => index + 1),
	);
	for (const [row] of rows) assert.match(row, /`test\/|none yet/);
});
