import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { access, constants, statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { loadConfiguration } from "../config/load.ts";
import { RUNNER_DIRECTORY, runnerPython } from "../config/project-paths.ts";
import { runIsolation } from "../config/run-isolation.ts";
import { runnerEnvironment } from "../config/runner-environment.ts";
import type { Configuration } from "../config/schema.ts";
import type { Secrets } from "../config/secrets.ts";
import { openPostgres } from "../db/pg.ts";
import { assertNever } from "../errors.ts";
import { silentLog } from "../log.ts";
import { formatBytes } from "../publish/figures.ts";
import { measureIsolation } from "../runners/isolation.ts";
import { checkEngines } from "./check-engines.ts";
import { checkIssues } from "./check-issues.ts";
import { checkRunner } from "./check-runner.ts";
import { checkSignIn } from "./check-sign-in.ts";
import { checkPublisherToken, checkReadToken, checkStagingToken } from "./check-tokens.ts";
import { checkWatch, checkWebhook } from "./check-watch.ts";
import { problemLine } from "./config-check.ts";
import { EXIT_CODES, type ExitCode } from "./exit-codes.ts";
import { broken, type Finding, fine, firstLine, lacking } from "./finding.ts";
import { printable, type Terminal } from "./terminal.ts";

const PYTHON_PROBE = `
import importlib, json, platform
found = {}
for name in ("torch", "transformers", "safetensors", "gguf", "onnx", "onnxruntime", "numba", "compressed_tensors", "yaqa_runner"):
    try:
        found[name] = str(getattr(importlib.import_module(name), "__version__", "found"))
    except Exception as error:
        found[name] = None
cuda = None
try:
    import torch
    if torch.cuda.is_available():
        cuda = torch.cuda.get_device_name(0)
except Exception:
    pass
print(json.dumps({"python": platform.python_version(), "modules": found, "cuda": cuda}))
`;

const LOW_DISK_BYTES = 2e9;
const SCARCE_DISK_BYTES = 20e9;

/** The folder itself or the nearest one above it: looking must not make folders. */
function existingPartOf(folder: string): string {
	return existsSync(folder) || dirname(folder) === folder ? folder : existingPartOf(dirname(folder));
}

function checkNode(): Finding {
	const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
	return major > 22 || (major === 22 && minor >= 18)
		? fine("Node", process.versions.node)
		: broken("Node", process.versions.node, "Run `npm run setup`: it installs Node 24 for the project.");
}

function runProgram(command: string, args: readonly string[], seconds: number): Promise<string | null> {
	return new Promise((resolve) => {
		let output = "";
		const child = spawn(command, args, {
			cwd: RUNNER_DIRECTORY,
			env: runnerEnvironment(),
			stdio: ["ignore", "pipe", "ignore"],
		});
		const timer = setTimeout(() => child.kill("SIGKILL"), seconds * 1000);
		child.stdout.on("data", (chunk: Buffer) => {
			output += chunk.toString("utf8").slice(0, 65_536);
		});
		child.on("error", () => resolve(null));
		child.on("close", (code) => {
			clearTimeout(timer);
			resolve(code === 0 ? output : null);
		});
	});
}

async function checkPython(configuration: Configuration): Promise<readonly Finding[]> {
	const python = runnerPython(configuration);
	if (!existsSync(python)) return [broken("Python", `${python} is not there`, "Run `npm run setup`.")];
	const output = await runProgram(python, ["-c", PYTHON_PROBE], 120);
	if (output === null) return [broken("Python", `${python} does not run`, "Run `npm run setup` again.")];
	const probe = JSON.parse(output.trim().split("\n").at(-1) ?? "{}") as {
		python: string;
		modules: Record<string, string | null>;
		cuda: string | null;
	};
	const missing = Object.entries(probe.modules).flatMap(([name, version]) => (version === null ? [name] : []));
	return [
		missing.length === 0
			? fine(
					"Python",
					`${probe.python}, torch ${probe.modules["torch"]}, transformers ${probe.modules["transformers"]}`,
				)
			: broken("Python", `cannot import ${missing.join(", ")}`, "Run `npm run setup` again."),
		probe.cuda === null
			? lacking("GPU", "none that torch can use: runs take the CPU", "Fine for small models; large ones need CUDA.")
			: fine("GPU", probe.cuda),
	];
}

/** How far runs on this machine are kept from the rest of it. */
async function checkIsolation(configuration: Configuration): Promise<Finding> {
	const name = "Isolation of runs";
	const folder = existingPartOf(configuration.database.dataDirectory);
	const { level, reason } = await measureIsolation(runIsolation(configuration), {
		folder,
		environment: runnerEnvironment(),
	});
	switch (level) {
		case "own-account":
			return fine(name, "an account and namespaces of their own: no network, no other process, no files but theirs");
		case "namespaces":
			return fine(
				name,
				`namespaces of their own under the bot's account: no network, no other process, no files but theirs${reason === null ? "" : `; not another account: ${reason}`}`,
			);
		case "none": {
			const remedy =
				"Let the bot's account make user namespaces (sysctl kernel.unprivileged_userns_clone=1; in a container --security-opt seccomp=unconfined), or use another runner.";
			const detail = `none: ${reason ?? "the system does not allow it"}. Runs share the bot's account; its tokens are in no environment and no file`;
			return configuration.runner.isolation === "required"
				? broken(name, detail, remedy)
				: lacking(name, detail, remedy);
		}
		default:
			return assertNever(level);
	}
}

async function checkCompiler(): Promise<Finding> {
	for (const name of ["cc", "gcc", "clang"]) {
		const output = await runProgram(name, ["--version"], 10);
		if (output !== null) return fine("C compiler", output.split("\n", 1)[0] ?? name);
	}
	return lacking("C compiler", "none found", "Only the GPU kernels need one: install gcc or clang for runs on CUDA.");
}

async function checkDatabase(configuration: Configuration, secrets: Secrets): Promise<Finding> {
	if (secrets.databaseUrl !== null) {
		try {
			const database = await openPostgres({ url: secrets.databaseUrl, poolSize: 2, log: silentLog });
			await database.close();
			return fine("Database", "PostgreSQL answers");
		} catch (error) {
			return broken("Database", `PostgreSQL: ${firstLine(error)}`, "Start it, or correct DATABASE_URL.");
		}
	}
	const { dataDirectory } = configuration.database;
	try {
		await access(existingPartOf(dataDirectory), constants.W_OK);
	} catch (error) {
		return broken("Database", firstLine(error), "Choose a database.dataDirectory that can be written.");
	}
	const lock = join(dataDirectory, "database.lock");
	if (!existsSync(lock)) return fine("Database", `embedded, in ${dataDirectory}`);
	const pid = /"pid":(\d+)/.exec(readFileSync(lock, "utf8"))?.[1];
	const lives = pid !== undefined && existsSync(`/proc/${pid}`);
	return lives
		? fine("Database", `embedded, in ${dataDirectory}, in use by process ${pid}`)
		: fine("Database", `embedded, in ${dataDirectory}; a lock that a crash left is taken over at the next start`);
}

async function checkDisk(configuration: Configuration): Promise<Finding> {
	const { dataDirectory } = configuration.database;
	try {
		const { bavail, bsize } = await statfs(existingPartOf(dataDirectory));
		const free = bavail * bsize;
		const detail = `${formatBytes(free)} free in ${dataDirectory}`;
		if (free < LOW_DISK_BYTES)
			return broken("Disk", detail, "Free some space, or set database.dataDirectory elsewhere.");
		if (free < SCARCE_DISK_BYTES) return lacking("Disk", detail, "A run needs about three times its model's size.");
		return fine("Disk", detail);
	} catch (error) {
		return broken("Disk", firstLine(error), "Choose a database.dataDirectory that can be written.");
	}
}

async function checkPort(configuration: Configuration): Promise<Finding> {
	const { host, port } = configuration.server;
	const problem = await new Promise<NodeJS.ErrnoException | null>((resolve) => {
		const server = createServer();
		server.once("error", resolve);
		server.listen(port, host, () => server.close(() => resolve(null)));
	});
	const name = "Port";
	if (problem === null) return fine(name, `${host}:${port} is free`);
	if (problem.code !== "EADDRINUSE") return broken(name, firstLine(problem), "Correct server.host and server.port.");
	const alive = await fetch(`http://${host}:${port}/healthz`, { signal: AbortSignal.timeout(2000) })
		.then(async (response) => response.ok && (await response.text()).includes('"alive":true'))
		.catch(() => false);
	return alive
		? fine(name, `${host}:${port}: the bot is running there`)
		: broken(name, `${host}:${port} is taken by another program`, "Stop it, or choose another server.port.");
}

/** Findings in the order in which they are listed, each shown as soon as it and those before it are there. */
async function report(
	checks: readonly (Promise<Finding | readonly Finding[]> | Finding)[],
	show: (finding: Finding) => void,
): Promise<readonly Finding[]> {
	const all: Finding[] = [];
	// One that fails while an earlier one is waited for must not end the program.
	for (const check of checks) void Promise.resolve(check).catch(() => undefined);
	for (const check of checks) {
		for (const finding of [await check].flat()) {
			all.push(finding);
			show(finding);
		}
	}
	return all;
}

const NAME_WIDTH = 18;
const SIGNS = { fine: "✓", lacking: "!", broken: "✗" } as const;

/** `yaqa-bot doctor`: everything the bot needs, with the remedy for what is missing. Secrets are never printed. */
export async function doctor(
	options: { readonly configurationPath: string | null; readonly json: boolean },
	terminal: Terminal,
): Promise<ExitCode> {
	// With --json the lines go where people look, and the one document to stdout.
	const print = options.json ? terminal.err : terminal.out;
	const show = (finding: Finding): void => {
		print(`${SIGNS[finding.state]} ${finding.name.padEnd(NAME_WIDTH)}  ${printable(finding.detail)}\n`);
		if (finding.remedy !== null) print(`  ${" ".repeat(NAME_WIDTH)}  → ${printable(finding.remedy)}\n`);
	};
	const loaded = loadConfiguration(options.configurationPath === null ? {} : { path: options.configurationPath });
	const checks: (Promise<Finding | readonly Finding[]> | Finding)[] = [checkNode()];
	if (!loaded.ok) {
		for (const problem of loaded.problems) {
			checks.push(broken("Configuration", problemLine(problem), "See `yaqa-bot config check`."));
		}
	} else {
		const { configuration, secrets } = loaded;
		checks.push(
			fine("Configuration", loaded.path ?? "defaults and environment"),
			// Runs elsewhere bring their own.
			...(configuration.runner.kind === "local"
				? [checkPython(configuration), checkIsolation(configuration), checkCompiler()]
				: []),
			checkRunner(configuration, secrets),
			checkEngines(configuration),
			checkDatabase(configuration, secrets),
			checkDisk(configuration),
			checkPublisherToken(configuration, secrets),
			checkReadToken(configuration, secrets),
			checkStagingToken(configuration, secrets),
			checkWebhook(configuration, secrets),
			checkIssues(configuration, secrets),
			checkSignIn(configuration, secrets),
			checkPort(configuration),
			checkWatch(configuration, secrets),
		);
	}
	const findings = await report(checks, show);
	const ok = findings.every((finding) => finding.state !== "broken");
	if (options.json) terminal.out(`${JSON.stringify({ ok, findings })}\n`);
	else terminal.out(ok ? "\nThe bot can work.\n" : "\nThe bot cannot work until what is marked ✗ is mended.\n");
	return ok ? EXIT_CODES.ok.code : EXIT_CODES.failed.code;
}
