#!/usr/bin/env node
// Runs the program on a Node that strips types by itself: this one if it can, else the one that the project installs.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const program = join(root, "src", "main.ts");
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);

if (major > 22 || (major === 22 && minor >= 18)) {
	process.argv[1] = program;
	await import(pathToFileURL(program).href);
} else {
	const own = [
		join(root, "node_modules", ".bin", process.platform === "win32" ? "node.exe" : "node"),
		join(root, "node_modules", "node", "bin", "node"),
	].find((path) => existsSync(path));
	if (own === undefined) {
		process.stderr.write(
			`yaqa-bot needs Node 22.18 or newer; this is ${process.versions.node}. Run "npm run setup" in ${root}, which installs one for the project.\n`,
		);
		process.exit(2);
	}
	const child = spawn(own, [program, ...process.argv.slice(2)], { stdio: "inherit" });
	// The terminal sends Ctrl-C to both; other signals come here alone and are passed on.
	process.on("SIGINT", () => {});
	for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
	child.on("error", (error) => {
		process.stderr.write(`${own} cannot be started: ${error.message}\n`);
		process.exitCode = 2;
	});
	child.on("close", (code, signal) => {
		process.exitCode = code ?? 128 + (constants.signals[signal ?? "SIGTERM"] ?? 15);
	});
}
