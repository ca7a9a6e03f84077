import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { CLI_COMMANDS, commandText, overviewText, parseCommandLine } from "../../src/cli/command-line.ts";
import { createProgressDisplay } from "../../src/cli/progress-display.ts";
import { printable, type Terminal } from "../../src/cli/terminal.ts";
import type { RunnerEvent } from "../../src/protocol/events.ts";
import { RECIPE_NAMES } from "../../src/protocol/recipe-table.ts";

const program = fileURLToPath(new URL("../../bin/yaqa-bot.mjs", import.meta.url));
let folder: string;
before(async () => {
	folder = await mkdtemp(join(tmpdir(), "yaqa-cli-"));
});
after(() => rm(folder, { recursive: true, force: true }));

async function run(
	args: readonly string[],
	options: {
		env?: Record<string, string>;
		onOutput?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
	} = {},
): Promise<{ code: number | null; out: string; err: string }> {
	const child = spawn(process.execPath, [program, ...args], {
		cwd: folder,
		env: { PATH: process.env["PATH"] ?? "", ...options.env },
		stdio: ["ignore", "pipe", "pipe"],
	});
	let out = "";
	let err = "";
	child.stdout.on("data", (chunk: Buffer) => {
		out += chunk.toString("utf8");
		options.onOutput?.(out, (signal) => child.kill(signal));
	});
	child.stderr.on("data", (chunk: Buffer) => {
		err += chunk.toString("utf8");
	});
	const [code] = (await once(child, "close")) as [number | null];
	return { code, out, err };
}

function lastJson(out: string): Record<string, unknown> {
	return JSON.parse(out.trimEnd().split("\n").at(-1) ?? "") as Record<string, unknown>;
}

test("help names every command and every exit status", async () => {
	const { code, out, err } = await run(["help"]);
	assert.equal(code, 0);
	assert.equal(err, "");
	for (const command of CLI_COMMANDS) assert.ok(out.includes(`  ${command.name}`), command.name);
	assert.match(out, /75\s+interrupted/);
});

test("help for one command is the same by either way of asking, and no argument is help", async () => {
	const [one, other, none] = await Promise.all([run(["help", "quantize"]), run(["quantize", "--help"]), run([])]);
	assert.equal(one.out, other.out);
	assert.match(one.out, /--recipe RECIPE/);
	assert.equal(none.out, `${overviewText()}\n`);
});

test("an unknown command is told the nearest one and ends with 2", async () => {
	const { code, err, out } = await run(["quantise"]);
	assert.equal(code, 2);
	assert.match(err, /Did you mean "quantize"\?/);
	assert.equal(out, "");
});

test("usage faults end with 2, say what is wrong, and are JSON where JSON was asked for", async () => {
	for (const [args, expected] of [
		[["quantize", "--recipes", "x", "m"], /no option "--recipes". Did you mean "--recipe"/],
		[["quantize"], /needs MODEL/],
		[["verify", "a", "b"], /does not take "b"/],
		[["serve", "--port", "99999"], /A port is a number/],
		[["config", "chekc"], /knows "check"/],
	] as const) {
		const { code, err } = await run(args);
		assert.equal(code, 2, args.join(" "));
		assert.match(err, expected);
	}
	const { code, out } = await run(["quantize", "--json"]);
	assert.equal(code, 2);
	assert.equal(lastJson(out)["ok"], false);
});

test("a Hub that cannot be reached is no bug: one sentence, no stack", async () => {
	const path = join(folder, "unreachable.yaml");
	await writeFile(path, "hub:\n  url: http://127.0.0.1:9\n");
	const { code, out, err } = await run(["plan", "owner/model", "--config", path, "--json"]);
	assert.equal(code, 1);
	assert.match(err, /^The Hub could not be reached[^\n]*\nAnother try may succeed\.\n$/);
	assert.deepEqual(Object.keys(lastJson(out)), ["ok", "error"]);
});

test("the help of quantize lists every recipe, and a fault names the command's own help", async () => {
	const { out } = await run(["help", "quantize"]);
	for (const { name } of RECIPE_NAMES) assert.match(out, new RegExp(`\\b${name}\\b`));
	assert.match((await run(["plan"])).err, /"yaqa-bot help plan" shows how/);
	assert.match((await run(["quantise"])).err, /"yaqa-bot help" lists the commands/);
});

test("config check names secrets by their variables", async () => {
	const { out } = await run(["config", "check"], { env: { YAQA_BOT_READ_TOKEN: "hf_averysecrettoken" } });
	assert.match(out, /\n {2}YAQA_BOT_HUB_TOKEN or HF_TOKEN: not set\n {2}YAQA_BOT_READ_TOKEN: set\n/);
	assert.ok(!out.includes("averysecret"));
});

test("config check prints what is in force and never a secret", async () => {
	const { code, out } = await run(["config", "check", "--json"], {
		env: { YAQA_BOT_HUB_TOKEN: "hf_averysecrettoken", YAQA_BOT_WEBHOOK_SECRET: "averysecretword" },
	});
	assert.equal(code, 0);
	const document = lastJson(out);
	assert.equal(document["ok"], true);
	assert.deepEqual((document["secrets"] as Record<string, boolean>)["publisherToken"], true);
	assert.ok(!out.includes("averysecret"));
});

test("config check names each problem with its place and ends with 2", async () => {
	const path = join(folder, "bad.yaml");
	await writeFile(path, "server:\n  prot: 80\nwatch:\n  recipes: [gguf:q4_1x]\n");
	const { code, out, err } = await run(["config", "check", "--config", path, "--json"]);
	assert.equal(code, 2);
	assert.match(err, /server\.prot.*Did you mean "port"\?/);
	assert.equal((lastJson(out)["problems"] as unknown[]).length > 0, true);
});

test("serve without a token says which variable to set and ends with 2", async () => {
	const { code, err } = await run(["serve"]);
	assert.equal(code, 2);
	assert.match(err, /YAQA_BOT_HUB_TOKEN/);
});

test("serve comes up, answers, and stops gracefully at SIGTERM", async () => {
	const path = join(folder, "serve.json");
	await writeFile(
		path,
		JSON.stringify({
			server: { port: 0 },
			hub: { url: "http://127.0.0.1:9" },
			database: { dataDirectory: join(folder, "data") },
			sweep: { enabled: false },
		}),
	);
	let health: Promise<Response> | null = null;
	const { code, out, err } = await run(["serve", "--config", path, "--json"], {
		env: { YAQA_BOT_HUB_TOKEN: "hf_averysecrettoken" },
		onOutput: (text, kill) => {
			if (health !== null || !text.includes("\n")) return;
			health = fetch(`${String(lastJson(text)["address"])}/healthz`);
			void health.finally(() => kill("SIGTERM"));
		},
	});
	assert.equal(code, 0, err);
	assert.equal((await (health as Promise<Response> | null))?.status, 200);
	assert.equal(lastJson(out)["ok"], true);
	assert.match(err, /"message":"Stopped"/);
	assert.ok(!err.includes("averysecret"));
});

test("quantize refuses what is no model, with the reason, the remedy and its own status", async () => {
	const pickle = join(folder, "pickle");
	await mkdir(pickle);
	await writeFile(
		join(pickle, "config.json"),
		JSON.stringify({ architectures: ["LlamaForCausalLM"], model_type: "llama" }),
	);
	await writeFile(join(pickle, "pytorch_model.bin"), "x");
	const refused = await run(["quantize", pickle, "-o", join(folder, "out"), "--json"]);
	assert.equal(refused.code, 3, refused.err);
	const error = lastJson(refused.out)["error"] as Record<string, string>;
	assert.equal(error["code"], "pickle-only");
	assert.ok((error["remedy"] ?? "").length > 10);

	const neither = await run(["quantize", "not there", "-o", join(folder, "out")]);
	assert.equal(neither.code, 2);
	assert.match(neither.err, /neither a folder here nor a repo name/);

	const recipe = await run(["quantize", pickle, "-r", "gguf:q4_O", "-o", join(folder, "out")]);
	assert.equal(recipe.code, 2);
	assert.match(recipe.err, /Did you mean "gguf:q4_0"\?/);
});

test("verify says when there is nothing to verify", async () => {
	const { code, err } = await run(["verify", folder]);
	assert.equal(code, 3);
	assert.match(err, /No variant with a manifest\.json/);
});

test("measure says which of its files is not there, and what its numbers are", async () => {
	const absent = await run(["measure", folder, "nowhere.gguf", "--json"]);
	assert.equal(absent.code, 2);
	assert.equal(lastJson(absent.out)["ok"], false);
	assert.match(absent.err, /There is no nowhere\.gguf/);
	const notAModel = await run(["measure", folder, folder]);
	assert.ok(notAModel.code === 2 || notAModel.code === 3, notAModel.err);
	assert.doesNotMatch(notAModel.err, /at \w+ \(/);
});

test("doctor names what is broken with its remedy, ends with 1, and leaves no folder behind", async () => {
	const { code, out } = await run(["doctor", "--json"], {
		env: {
			YAQA_BOT_PYTHON: "/nowhere/python",
			YAQA_BOT_HUB_URL: "http://127.0.0.1:9",
			YAQA_BOT_DATA_DIR: join(folder, "never"),
		},
	});
	assert.equal(code, 1);
	const document = lastJson(out);
	const findings = document["findings"] as { name: string; state: string; remedy: string | null }[];
	assert.equal(findings.find((finding) => finding.name === "Python")?.state, "broken");
	assert.equal(findings.find((finding) => finding.name === "Publisher token")?.state, "broken");
	for (const finding of findings) assert.equal(finding.remedy === null, finding.state === "fine", finding.name);
});

test("the tables of options and examples agree", () => {
	for (const command of CLI_COMMANDS) {
		const text = commandText(command);
		for (const option of Object.keys(command.options)) assert.ok(text.includes(`--${option}`));
		for (const example of command.examples) {
			const [name, ...args] = example.split(" ");
			assert.equal(name, "yaqa-bot");
			const parsed = parseCommandLine(args);
			assert.ok(parsed.ok && parsed.command.name === command.name, example);
		}
	}
});

function fakeTerminal(isScreen: boolean): Terminal & { written: () => string } {
	let written = "";
	return {
		out: () => assert.fail("progress never goes to stdout"),
		err: (text) => {
			written += text;
		},
		isScreen,
		columns: () => 80,
		written: () => written,
	};
}

const envelope = { job: "00000000-0000-4000-8000-000000000001", fence: 1, at: "2026-01-01T00:00:00.000Z" };
const EVENTS: readonly RunnerEvent[] = [
	{ event: "stage", ...envelope, stage: "round", status: "started" },
	...Array.from(
		{ length: 100 },
		(_, index): RunnerEvent => ({
			event: "progress",
			...envelope,
			stage: "round",
			done: index,
			total: 100,
			unit: "layers",
			etaSeconds: 100 - index,
		}),
	),
	{ event: "warning", ...envelope, code: "x", message: "evil \u001B[31m title" },
	{ event: "stage", ...envelope, stage: "round", status: "finished", seconds: 12 },
	{ event: "stage", ...envelope, stage: "evaluate", status: "started", detail: "original" },
	{ event: "stage", ...envelope, stage: "evaluate", status: "finished", detail: "original", seconds: 3 },
	{ event: "stage", ...envelope, stage: "evaluate", status: "started", detail: "gguf:q4_0" },
	{ event: "progress", ...envelope, stage: "evaluate", done: 1.25, total: 4, unit: "sequences", etaSeconds: null },
	{ event: "stage", ...envelope, stage: "evaluate", status: "finished", detail: "gguf:q4_0", seconds: 4 },
];

test("on plain output progress is a few lines without control characters", () => {
	const terminal = fakeTerminal(false);
	const display = createProgressDisplay(terminal, () => new Date(0));
	for (const event of EVENTS) display.event(event);
	display.close();

	const lines = terminal.written().split("\n");
	assert.ok(lines.length < 25, `${lines.length} lines`);
	assert.ok(!terminal.written().includes("\u001B"));
	assert.match(terminal.written(), /✓ round the weights\s+12 s/);
	assert.match(terminal.written(), /✓ measure the original\s+3\.0 s/);
	assert.match(
		terminal.written(),
		/\n {2}measure the files, gguf:q4_0: 1 of 4 sequences\n✓ measure the files, gguf:q4_0\s+4\.0 s/,
	);
});

test("on a screen the cursor comes back and messages cannot drive the terminal", () => {
	const terminal = fakeTerminal(true);
	const display = createProgressDisplay(terminal, () => new Date(0));
	for (const event of EVENTS) display.event(event);
	display.close();

	assert.ok(terminal.written().endsWith("\u001B[?25h"));
	assert.ok(!terminal.written().includes("\u001B[31m"));
	assert.equal(printable("a\u001B]0;x\u0007b\u202E"), "a\uFFFD]0;x\uFFFDb\uFFFD");
});
