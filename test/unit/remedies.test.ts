import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { test } from "node:test";

/** What a person is told to set exists: a remedy that names another setting leads nowhere. */

const ROOT = join(import.meta.dirname, "../..");
const FILE_ENDINGS =
	/\.(bin|css|env|gguf|html|ini|js|json|jsonl|jinja|md|mjs|onnx|pickle|png|pt|pub|py|safetensors|sh|sql|svg|toml|ts|txt|yaml|yml)$/;
const DOTTED = /(?<![\w./@:$-])[a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+(?![\w/(@:-])/g;
/** Code inside texts: SQL, styles, templates of pages and of what cards show. */
const CODE = /^src\/(?:db|local-hub|web\/views|commands\/comment-lines|publish\/card\/load-snippets)/;
/** Dotted words that are no settings. */
const OTHER_WORDS: ReadonlySet<string> = new Set(
	"huggingface.co github.com llama.cpp transformers.js tokenizer.model torch.cuda event.action event.scope repo.type repo.name".split(
		" ",
	),
);

type Schema = { readonly properties?: Record<string, Schema>; readonly items?: Schema } & Readonly<
	Partial<Record<"anyOf" | "oneOf" | "allOf", readonly Schema[]>>
>;

/** Every setting's dotted name; a list's members count as its own. */
function settingNames(schema: Schema, prefix = ""): string[] {
	const inner = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
	const items = schema.items === undefined ? [] : [schema.items];
	return [
		...[...inner, ...items].flatMap((part) => settingNames(part, prefix)),
		...Object.entries(schema.properties ?? {}).flatMap(([key, value]) => {
			const name = prefix === "" ? key : `${prefix}.${key}`;
			return [name, ...settingNames(value, name)];
		}),
	];
}

/** The texts of a file's string and template literals, expressions replaced by an ellipsis. */
function literalsOf(path: string): string[] {
	const code = readFileSync(path, "utf8")
		.replaceAll(/\/\*[\s\S]*?\*\//g, "")
		.replaceAll(/^\s*\/\/.*$/gm, "");
	return [...code.matchAll(/"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`/g)].map(([, plain, template]) =>
		(plain ?? template ?? "").replaceAll(/\$\{[^}]*\}?/g, "…"),
	);
}

/** Dotted words in what people read: texts of several words. */
function namedSettings(text: string): string[] {
	// A backtick in a regular expression makes code look like a text.
	if (!/[A-Za-z]{2,} /.test(text) || /=>|\);|===/.test(text)) return [];
	return [...text.matchAll(DOTTED)]
		.map(([name]) => name)
		.filter((name) => !FILE_ENDINGS.test(name) && !OTHER_WORDS.has(name));
}

test("every setting that a message names is in the configuration's schema", () => {
	const schema: Schema = JSON.parse(readFileSync(join(ROOT, "config/yaqa-bot.schema.json"), "utf8"));
	const known = new Set(settingNames(schema));
	assert.ok(known.has("database.dataDirectory") && known.has("runner.timeoutSeconds"));
	const sources = readdirSync(join(ROOT, "src"), { recursive: true, withFileTypes: true })
		.filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && !entry.parentPath.includes("/migrations"))
		.map((entry) => join(entry.parentPath, entry.name));
	const named = sources
		.filter((path) => !CODE.test(relative(ROOT, path)))
		.flatMap((path) =>
			literalsOf(path)
				.flatMap(namedSettings)
				.map((name) => ({ name, path: relative(ROOT, path) })),
		);
	assert.ok(named.filter(({ name }) => known.has(name)).length > 10, "the texts are found at all");
	assert.deepEqual(
		named.filter(({ name }) => !known.has(name)).map(({ name, path }) => `${path}: ${name}`),
		[],
	);
});
