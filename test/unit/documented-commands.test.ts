import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseCommandLine } from "../../src/cli/command-line.ts";
import { parseRecipe, recipeDirectory } from "../../src/protocol/recipe.ts";

/**
 * Every command that the documents tell people to type is one that the programs take: npm scripts exist, both command
 * lines parse their arguments, scripts and tests lie where they are said to.
 */

const ROOT = join(import.meta.dirname, "../..");
const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");
const DOCUMENTS = [
	"README.md",
	"CONTRIBUTING.md",
	"deploy/README.md",
	"gpu-runner/README.md",
	...readdirSync(join(ROOT, "docs"))
		.filter((name) => name.endsWith(".md"))
		.map((name) => `docs/${name}`),
];

type Command = { readonly document: string; readonly words: readonly string[] };

/** Lines of shell blocks and inline code, split into commands and those into words. */
function commandsOf(document: string): Command[] {
	const text = readFileSync(join(ROOT, document), "utf8");
	const blocks = [...text.matchAll(/^\s*```(?:sh|bash|shell)\n([\s\S]*?)^\s*```/gm)].map(([, block = ""]) => block);
	const inline = [...text.replaceAll(/^\s*```[\s\S]*?^\s*```/gm, "").matchAll(/`([^`\n]+)`/g)].map(
		([, code = ""]) => code,
	);
	return [...blocks.join("\n").replaceAll("\\\n", " ").split("\n"), ...inline].flatMap((line) =>
		line
			.replace(/\s+#.*$/, "")
			.split(/\s*(?:&&|;|\|)\s+/)
			.map((command) => ({
				document,
				words: [...command.trim().matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
					([, one, two, bare]) => one ?? two ?? bare ?? "",
				),
			})),
	);
}

const commands = DOCUMENTS.filter((path) => existsSync(join(ROOT, path))).flatMap(commandsOf);
const told = ({ document, words }: Command): string => `${document}: ${words.join(" ")}`;
const startingWith = (...start: readonly string[]): readonly Command[] =>
	commands.filter(({ words }) => words.length > start.length && start.every((word, index) => words[index] === word));

test("every npm script that is named exists", () => {
	const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { scripts: object };
	const named = startingWith("npm", "run");
	assert.ok(named.length > 10);
	assert.deepEqual(
		named.filter(({ words }) => /^[a-z]/.test(words[2] ?? "") && !Object.hasOwn(scripts, words[2] ?? "")).map(told),
		[],
	);
});

test("yaqa-bot takes every command line that is named", () => {
	const named = [
		...startingWith("npm", "run", "yaqa-bot", "--").map((command) => ({ command, args: command.words.slice(4) })),
		...startingWith("yaqa-bot").map((command) => ({ command, args: command.words.slice(1) })),
	].filter(
		({ args }) => args.every((word) => !/[…[\]]/.test(word)) && args.length > 1 && /^[a-z]+$/.test(args[0] ?? ""),
	);
	assert.ok(named.length > 5);
	const refused = named.flatMap(({ command, args }) => {
		const parsed = parseCommandLine(args);
		return parsed.ok ? [] : [`${told(command)}: ${JSON.stringify(parsed)}`];
	});
	assert.deepEqual(refused, []);
});

test("yaqa-runner takes every command line that is named", {
	skip: existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up",
}, () => {
	const named = [
		...startingWith("yaqa-runner").map((command) => ({ command, args: command.words.slice(1) })),
		...commands.flatMap((command) => {
			const at = command.words.indexOf("yaqa_runner");
			return at > 0 && command.words[at - 1] === "-m" ? [{ command, args: command.words.slice(at + 1) }] : [];
		}),
	].filter(({ args }) => args.length > 1 && args.every((word) => !/[…[\]]/.test(word)));
	assert.ok(named.length > 4);
	const program = `
import contextlib, io, json, sys
from yaqa_runner.cli.main import COMMANDS
from yaqa_runner.cli.parser import build_parser
answers = []
for arguments in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            build_parser(COMMANDS, "").parse_args(arguments)
        except SystemExit as end:
            answers.append(said.getvalue() if end.code else "")
        else:
            answers.append("")
print(json.dumps(answers))
`;
	const answers = JSON.parse(
		execFileSync(PYTHON, ["-c", program], {
			input: JSON.stringify(named.map(({ args }) => args)),
			cwd: join(ROOT, "gpu-runner"),
		}).toString(),
	) as string[];
	assert.deepEqual(
		named.flatMap(({ command }, index) => (answers[index] === "" ? [] : [`${told(command)}: ${answers[index]}`])),
		[],
	);
});

test("scripts and tests that are named lie where they are said to", () => {
	const missing = commands.flatMap((command) =>
		command.words
			.filter((word) => /^(?:\.\/)?(?:test|gpu-runner|scripts|demo|deploy)\/\S+\.(?:ts|py|mjs|sh)$/.test(word))
			.filter((word) => !existsSync(join(ROOT, word)))
			.map((word) => `${told(command)}: ${word}`),
	);
	assert.deepEqual(missing, []);
});

test("folders of variants are spelled as the runner names them", () => {
	const wrong = commands.flatMap((command) =>
		command.words.flatMap((word) => {
			const folder = /^(?:out|OUT|OUTPUT)\/(.+)$/.exec(word)?.[1]?.replace(/\/.*$/, "") ?? "";
			const recipe = folder.replace(/^gguf[-_:]/, "gguf:").replaceAll("-", "_");
			const parsed = parseRecipe(recipe);
			return parsed.ok && recipeDirectory(parsed.recipe.canonical) !== folder ? [`${told(command)}: ${word}`] : [];
		}),
	);
	assert.deepEqual(wrong, []);
});
