import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("../../bin/yaqa-bot.mjs", import.meta.url));

/** `yaqa-bot` as a person runs it, with these settings and nothing else of this process's environment. */
export async function runBot(
	args: readonly string[],
	env: Readonly<Record<string, string>>,
): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
	const child = spawn(process.execPath, [PROGRAM, ...args], {
		env: { PATH: process.env["PATH"] ?? "", ...env },
		stdio: ["ignore", "pipe", "pipe"],
	});
	let out = "";
	let err = "";
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		out += text;
	});
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		err += text;
	});
	const [code] = (await once(child, "close")) as [number | null];
	return { code, out, err };
}
