import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** Highest first. A module imports from its own folder and from those on lower lines. */
const ORDER: readonly (readonly string[])[] = [
	["main"],
	["cli"],
	["server"],
	["web", "queue"],
	["deliveries"],
	["commands"],
	["jobs"],
	["publish", "verify", "runners"],
	["hub", "github", "db"],
	["config"],
	["fit"],
	["records"],
	["protocol"],
	["disk-full"],
	["errors", "clock", "log", "keyed-lock", "parse-json"],
];
const LAYERS: Readonly<Record<string, number>> = Object.fromEntries(
	ORDER.flatMap((folders, line) => folders.map((folder) => [folder, ORDER.length - line])),
);

type Import = { readonly from: string; readonly to: string };

function filesUnder(folder: string, endings: readonly string[]): string[] {
	const absolute = join(root, folder);
	if (!existsSync(absolute)) return [];
	return readdirSync(absolute, { recursive: true, withFileTypes: true })
		.filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
		.map((entry) => relative(root, join(entry.parentPath, entry.name)))
		.filter((path) => !/node_modules|\.venv|\.peers|\/vendor\//.test(path));
}

/** Source without comments, so that prose about an import or about SQL is not taken for one. */
function codeOf(path: string): string {
	return readFileSync(join(root, path), "utf8")
		.replaceAll(/\/\*[\s\S]*?\*\//g, "")
		.replaceAll(/^\s*\/\/.*$/gm, "");
}

function importsOf(path: string): Import[] {
	const found: Import[] = [];
	const pattern = /(?:^|\n)\s*(?:import|export)\s+(?:type\s+)?(?:[\s\S]*?from\s+)?"(\.[^"]+)"|import\("(\.[^"]+)"\)/g;
	for (const match of codeOf(path).matchAll(pattern)) {
		const specifier = match[1] ?? match[2];
		if (specifier === undefined) continue;
		found.push({ from: path, to: relative(root, resolve(root, dirname(path), specifier)) });
	}
	return found;
}

function folderOf(path: string): string {
	const [, folder = ""] = path.split("/");
	return folder.replace(/\.ts$/, "");
}

const sources = filesUnder("src", [".ts"]);

test("every folder of src has its place in the layers", () => {
	const unknown = [...new Set(sources.map(folderOf))].filter(
		(folder) => folder !== "local-hub" && LAYERS[folder] === undefined,
	);
	assert.deepEqual(unknown, []);
});

test("modules import downward only", () => {
	const wrong = sources
		.filter((path) => folderOf(path) !== "local-hub")
		.flatMap(importsOf)
		.filter(({ from, to }) => {
			if (/^config\/[a-z-]+\.json$/.test(to)) return folderOf(from) !== "protocol";
			if (!to.startsWith("src/")) return folderOf(from) !== "cli" && folderOf(from) !== "main";
			if (folderOf(from) === folderOf(to)) return false;
			if (folderOf(to) === "local-hub") return folderOf(from) !== "cli" && folderOf(from) !== "main";
			return (LAYERS[folderOf(to)] ?? 0) >= (LAYERS[folderOf(from)] ?? 0);
		})
		.map(({ from, to }) => `${from} → ${to}`);
	assert.deepEqual(wrong, []);
});

test("the layers of CONTRIBUTING.md are those that are held here", () => {
	const [, line] = /```\n(.+ → .+)\n```/.exec(readFileSync(join(root, "CONTRIBUTING.md"), "utf8")) ?? [];
	assert.equal(
		line,
		"server, cli → web, queue → deliveries → commands → jobs → publish, verify, runners → hub, github, db → config → fit → records, protocol, errors, clock, log",
	);
	const written = (line ?? "").split(" → ").map((folders) => folders.split(", "));
	const wrong = written.flatMap((folders, place) =>
		written
			.slice(place + 1)
			.flat()
			.flatMap((lower) => folders.filter((folder) => (LAYERS[folder] ?? 0) <= (LAYERS[lower] ?? 99))),
	);
	assert.deepEqual(wrong, []);
});

test("the local Hub stands alone: it shares nothing with the bot but the lowest layer and the protocol", () => {
	const wrong = sources
		.filter((path) => folderOf(path) === "local-hub")
		.flatMap(importsOf)
		.filter(({ to }) => !["local-hub", "clock", "errors", "keyed-lock", "log", "protocol"].includes(folderOf(to)))
		.map(({ from, to }) => `${from} → ${to}`);
	assert.deepEqual(wrong, []);
});

test("no folder or file is named for nothing in particular", () => {
	const wrong = [...sources, ...filesUnder("test", [".ts"]), ...filesUnder("gpu-runner", [".py"])].filter((path) =>
		/(^|\/)(utils?|helpers?|common|misc)(\/|\.)/.test(path),
	);
	assert.deepEqual(wrong, []);
});

type Measured = { readonly name: string; readonly lines: number; readonly comment: string };

/**
 * The functions of a file's top level, each with those inside it: their lines without blanks and comments, and the
 * comment before them. Reads the indentation, which the formatter holds: only a function's first and last line, and
 * those of its signature, begin without any.
 */
function functionsOf(text: string): readonly Measured[] {
	const found: Measured[] = [];
	let comment: string[] = [];
	let open: { readonly name: string; hasBody: boolean; lines: number } | null = null;
	for (const line of text.split("\n")) {
		if (open?.hasBody === true && line.startsWith("}")) {
			found.push({ name: open.name, lines: open.lines, comment: comment.join(" ") });
			open = null;
			comment = [];
		} else if (open?.hasBody === true) {
			if (!/^\s*(\/\/|\/\*|\*|$)/.test(line)) open.lines++;
		} else if (/^(\/\*\*| \*)/.test(line)) {
			if (line.startsWith("/**")) comment = [];
			comment.push(line.replace(/^[/ *]+/, ""));
		} else {
			const [, name] = /^(?:export )?(?:(?:async )?function\*? |const (?=.* = (?:async )?\())(\w+)/.exec(line) ?? [];
			if (name !== undefined) open = { name, hasBody: false, lines: 0 };
			if (open !== null && /^\S.*\{$/.test(line)) open.hasBody = true;
			else if (/^\S.*;$/.test(line)) open = null;
			if (open === null && line !== "") comment = [];
		}
	}
	return found;
}

test("a function of more than 80 lines says why it is long", () => {
	const all = sources.flatMap((path) =>
		functionsOf(readFileSync(join(root, path), "utf8")).map((one) => ({ ...one, path })),
	);
	assert.ok(all.length > 1000 && all.some(({ lines }) => lines > 80), `${all.length} functions found`);
	const wrong = all
		.filter(({ lines, comment }) => lines > 80 && !/\bLong(,| as )|hence the length/.test(comment))
		.map(({ path, name, lines }) => `${path}: ${name}, ${lines} lines`);
	assert.deepEqual(wrong, []);
});

test("nothing is exported by default", () => {
	assert.deepEqual(
		sources.filter((path) => /^\s*export default\b/m.test(codeOf(path))),
		[],
	);
});

test("no test imports another: what tests share lies in test/support, or beside the one kind that uses it", () => {
	const shared = ["test/support", "test/fake-github", "test/fixtures"];
	const wrong = filesUnder("test", [".ts"])
		.flatMap(importsOf)
		.filter(({ from, to }) => {
			if (!to.startsWith("test/")) return !/^(src|scripts|demo|config)\//.test(to);
			if (to.endsWith(".test.ts")) return true;
			return !shared.includes(dirname(to)) && dirname(to) !== dirname(from);
		})
		.map(({ from, to }) => `${from} → ${to}`);
	assert.deepEqual(wrong, []);
});

test("the environment is read in src/config only", () => {
	assert.deepEqual(
		sources.filter(
			(path) => folderOf(path) !== "config" && /\bprocess\s*\.\s*env\b|\benv\s*}\s*=\s*process/.test(codeOf(path)),
		),
		[],
	);
});

test("SQL is written in src/db only", () => {
	const statement =
		/\b(SELECT\s[\s\S]{0,200}?\sFROM|INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET|CREATE\s+(TABLE|INDEX|UNIQUE)|ALTER\s+TABLE|DROP\s+TABLE)\b/;
	const builder = /\.(selectFrom|insertInto|updateTable|deleteFrom)\(/;
	assert.deepEqual(
		sources.filter((path) => folderOf(path) !== "db" && (statement.test(codeOf(path)) || builder.test(codeOf(path)))),
		[],
	);
});

test("jobs/ knows no HTTP", () => {
	assert.deepEqual(
		sources.filter(
			(path) => folderOf(path) === "jobs" && /from "(node:https?|express|undici)"|\bfetch\(/.test(codeOf(path)),
		),
		[],
	);
});

test("imports carry the .ts ending, which type stripping needs", () => {
	const wrong = sources
		.flatMap(importsOf)
		.filter(({ from, to }) => !/\.(ts|json|mjs)$/.test(to) && from !== "")
		.map(({ from, to }) => `${from} → ${to}`);
	assert.deepEqual(wrong, []);
});

test("no file imports itself round a circle", () => {
	const targets = new Map(sources.map((path) => [path, importsOf(path).map(({ to }) => to)]));
	const settled = new Set<string>();
	const circles: string[] = [];
	function visit(path: string, way: readonly string[]): void {
		const place = way.indexOf(path);
		if (place >= 0) circles.push([...way.slice(place), path].join(" → "));
		if (place >= 0 || settled.has(path)) return;
		for (const to of targets.get(path) ?? []) visit(to, [...way, path]);
		settled.add(path);
	}
	for (const path of sources) visit(path, []);
	assert.deepEqual(circles, []);
});

test("a webhook's way in docs/how-it-works.md goes downward, by at most twelve files that exist", () => {
	const text = readFileSync(join(root, "docs/how-it-works.md"), "utf8");
	const [, way = ""] = /<!-- way:begin -->([\s\S]*)<!-- way:end -->/.exec(text) ?? [];
	const lists = way
		.split(/\n(?=1\. )/)
		.map((list) => [...list.matchAll(/^\d+\. .*?\(\.\.\/(src\/[^)]+)\)/gm)].map(([, path = ""]) => path));
	const files = lists.flat();
	assert.ok(files.length > 5 && files.length <= 12, `${files.length} files`);
	assert.deepEqual(
		files.filter((path) => !sources.includes(path)),
		[],
	);
	const layerOf = (path: string): number => LAYERS[folderOf(path)] ?? 0;
	const upward = lists.flatMap((list) =>
		list.slice(1).flatMap((path, index) => {
			const before = list[index] ?? path;
			return layerOf(path) > layerOf(before) ? [`${before} → ${path}`] : [];
		}),
	);
	assert.deepEqual(upward, []);
});
