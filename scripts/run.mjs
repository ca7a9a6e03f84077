#!/usr/bin/env node
// `npm run <command>`: sets up what is missing, then runs the program with Node 24.
import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { nodeBinary, reportFailure, root, setUp } from "./setup.mjs";

try {
	const args = process.argv.slice(2);
	const { seconds } = await setUp();
	const child = spawn(nodeBinary(), [join(root, "src", "main.ts"), ...args], {
		cwd: root,
		stdio: "inherit",
		env: { ...process.env, YAQA_SETUP_SECONDS: seconds.toFixed(3) },
	});
	// Ctrl-C reaches the child through the terminal, once is enough; without one this program has to pass it on.
	process.on("SIGINT", () => {
		if (!process.stdin.isTTY) child.kill("SIGINT");
	});
	for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
	child.on("error", (error) => {
		process.exitCode = reportFailure(error);
	});
	child.on("close", (code, signal) => {
		process.exitCode = code ?? (signal === "SIGINT" ? 130 : 143);
	});
} catch (error) {
	process.exitCode = reportFailure(error);
}
