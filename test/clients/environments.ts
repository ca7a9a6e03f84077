import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { root } from "../../demo/stack.ts";

/** Clients are installed here once, each version in an environment of its own. */
export const CLIENTS = join(root, ".cache", "clients");

export const PYTHON_VERSIONS = {
	"2": "huggingface_hub>=2,<3",
	"1": "huggingface_hub>=1,<2",
	"0.36": "huggingface_hub>=0.36,<0.37",
} as const;
export type PythonVersion = keyof typeof PYTHON_VERSIONS;

const JAVASCRIPT = ["@huggingface/hub@2.17.5", "vitest@3.2.7"] as const;

export type Ended = { readonly code: number | null; readonly out: string; readonly err: string };

/** Runs a program to its end, with nothing of this environment but what is given. */
export function runProgram(
	program: string,
	args: readonly string[],
	options: {
		readonly directory?: string;
		readonly environment?: Readonly<Record<string, string>>;
		readonly seconds?: number;
	} = {},
): Promise<Ended> {
	return new Promise((resolve, reject) => {
		const child = spawn(program, args, {
			cwd: options.directory ?? root,
			stdio: ["ignore", "pipe", "pipe"],
			env: { PATH: process.env["PATH"] ?? "", LC_ALL: "C.UTF-8", ...options.environment },
		});
		let out = "";
		let err = "";
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			out += text;
		});
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			err += text;
		});
		const timer = setTimeout(() => child.kill("SIGKILL"), (options.seconds ?? 900) * 1000);
		child.once("error", reject);
		child.once("close", (code) => {
			clearTimeout(timer);
			resolve({ code, out, err });
		});
	});
}

async function installed(
	name: string,
	make: (draft: string) => Promise<readonly (readonly string[])[]>,
): Promise<string> {
	const folder = join(CLIENTS, name);
	if (existsSync(join(folder, "complete"))) return folder;
	await rm(folder, { recursive: true, force: true });
	await mkdir(folder, { recursive: true });
	// All of it: where registries are is often told by variables.
	const environment = Object.fromEntries(
		Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
	);
	for (const [program = "", ...args] of await make(folder)) {
		const { code, err } = await runProgram(program, args, { directory: folder, environment });
		if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}: ${err.slice(-1500)}`);
	}
	// Half an installation must not be taken for a whole one.
	await writeFile(join(folder, "complete.new"), "");
	await rename(join(folder, "complete.new"), join(folder, "complete"));
	return folder;
}

/** The folder of the version's programs. */
export async function pythonClient(version: PythonVersion): Promise<string> {
	const folder = await installed(`python-${version}`, async (draft) => [
		["python3", "-m", "venv", draft],
		[join(draft, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", PYTHON_VERSIONS[version]],
	]);
	return join(folder, "bin");
}

export function javascriptClient(): Promise<string> {
	return installed("javascript", async (draft) => {
		await writeFile(join(draft, "package.json"), '{"private":true,"type":"module"}\n');
		return [["npm", "install", "--no-audit", "--no-fund", "--silent", ...JAVASCRIPT]];
	});
}
