import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { CLI_COMMANDS, commandText, overviewText } from "../../src/cli/command-line.ts";

/** `yaqa-bot` on a terminal, at the widths that people have. */

const ROOT = join(import.meta.dirname, "../..");
const PYTHON = join(ROOT, "gpu-runner/.venv/bin/python");
const SUPPORT = join(ROOT, "test/support");
const PROGRAM = join(ROOT, "bin/yaqa-bot.mjs");

describe("on a terminal", { skip: existsSync(PYTHON) ? false : "skipped: gpu-runner/.venv is not set up" }, () => {
	let folder: string;
	before(async () => {
		folder = await mkdtemp(join(tmpdir(), "yaqa-terminal-"));
		await mkdir(join(folder, "empty"));
	});
	after(() => rm(folder, { recursive: true, force: true }));

	async function onTerminal(columns: number, ...command: readonly string[]): Promise<{ code: unknown; shown: string }> {
		const child = spawn(PYTHON, [join(SUPPORT, "on_terminal.py"), String(columns), process.execPath, ...command], {
			cwd: folder,
			env: { PATH: process.env["PATH"] ?? "", TERM: "xterm-256color" },
			stdio: ["ignore", "pipe", "inherit"],
		});
		let shown = "";
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			shown += text;
		});
		const [code] = await once(child, "close");
		return { code, shown };
	}

	function assertFits(shown: string, columns: number): void {
		const lines = shown
			.replaceAll(/\u001B\[[0-9;?]*[A-Za-z]/g, "")
			.split(/[\r\n]+/)
			.filter((line) => !line.includes(folder));
		for (const line of lines) assert.ok(line.length <= columns, `${line.length} columns: ${line}`);
	}

	for (const columns of [80, 120]) {
		test(`help fits into ${columns} columns`, async () => {
			const { code, shown } = await onTerminal(columns, PROGRAM, "help");
			assert.equal(code, 0, shown);
			assertFits(shown, columns);
			for (const command of CLI_COMMANDS) assertFits(`${commandText(command)}\n${overviewText()}`, columns);
		});

		test(`a refused model is told in ${columns} columns, and the cursor comes back`, async () => {
			const { code, shown } = await onTerminal(columns, PROGRAM, "quantize", "empty", "--recipe", "gguf:q8_0");
			assert.equal(code, 3, shown);
			assert.match(shown, /The repo holds no model yet/);
			assert.ok(shown.lastIndexOf("\u001B[?25h") > shown.lastIndexOf("\u001B[?25l"), "the cursor comes back");
		});

		test(`progress is drawn within ${columns} columns and gives way to what is finished`, async () => {
			const { code, shown } = await onTerminal(columns, join(SUPPORT, "replay-progress.ts"));
			assert.equal(code, 0, shown);
			assertFits(shown, columns);
			assert.match(shown, /33 %/);
			assert.match(shown, /✓ sketch the curvature\s+12 s/);
			assert.ok(shown.lastIndexOf("\u001B[?25h") > shown.lastIndexOf("\u001B[?25l"), "the cursor comes back");
		});
	}
});
