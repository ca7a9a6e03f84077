#!/usr/bin/env node
// Runs on the Node that the user has (20 or later) before anything is installed: plain JavaScript, no dependency.
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
	appendFileSync,
	existsSync,
	linkSync,
	mkdirSync,
	readFileSync,
	rmSync,
	statfsSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const windows = process.platform === "win32";
const cache = join(root, ".cache");
const stampFile = join(cache, "setup.json");
const lockFolder = join(cache, "setup.lock");
const venv = join(root, "gpu-runner", ".venv");

export const python = windows ? join(venv, "Scripts", "python.exe") : join(venv, "bin", "python");
const bundledNode = join(root, "node_modules", "node", "bin", windows ? "node.exe" : "node");

const OLDEST_NODE = 20;
const OLDEST_PYTHON = [3, 11];
const NEWEST_TESTED_PYTHON = [3, 13];
/** Free bytes that a first installation needs: about 0.7 GB of npm packages and 1.6 GB of Python wheels, unpacked. */
const NEEDED_BYTES = 3 * 1024 ** 3;
/** PyTorch with CUDA unpacks to about 6 GB more. */
const NEEDED_BYTES_WITH_CUDA = 10 * 1024 ** 3;
const LOCK_WAIT_MS = 20 * 60 * 1000;

/** What the user can mend. Its message is printed without a stack. */
class SetupError extends Error {
	constructor(message, remedy) {
		super(message);
		this.name = "SetupError";
		this.remedy = remedy;
	}
}

function hashOf(...parts) {
	const hash = createHash("sha256");
	for (const part of parts) hash.update(part).update("\0");
	return hash.digest("hex");
}

function contentOf(...path) {
	const file = join(root, ...path);
	return existsSync(file) ? readFileSync(file) : "";
}

function readStamp() {
	try {
		return JSON.parse(readFileSync(stampFile, "utf8"));
	} catch {
		return {};
	}
}

function writeStamp(stamp) {
	mkdirSync(cache, { recursive: true });
	writeFileSync(stampFile, `${JSON.stringify(stamp, null, "\t")}\n`);
}

function outputOf(program, args) {
	try {
		return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], shell: false }).trim();
	} catch {
		return null;
	}
}

function npmStampOf() {
	return hashOf(contentOf("package.json"), contentOf("package-lock.json"), `${process.platform}-${process.arch}`);
}

function pythonStampOf(interpreter) {
	return hashOf(
		contentOf("gpu-runner", "requirements.txt"),
		contentOf("gpu-runner", "requirements.lock"),
		contentOf("gpu-runner", "pyproject.toml"),
		interpreter,
	);
}

/** The first interpreter that is new enough, as `{ command, version }`. `PYTHON` overrides the search. */
function findPython() {
	const wanted = process.env.PYTHON;
	const names = wanted ? [wanted] : ["python3.13", "python3.12", "python3.11", "python3", "python"];
	const seen = [];
	for (const command of names) {
		const answer = outputOf(command, ["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]);
		if (answer === null) continue;
		seen.push(`${command} is ${answer}`);
		const [major = 0, minor = 0] = answer.split(".").map(Number);
		const tooOld = major < OLDEST_PYTHON[0] || (major === OLDEST_PYTHON[0] && minor < OLDEST_PYTHON[1]);
		const tooNew = major > NEWEST_TESTED_PYTHON[0] || minor > NEWEST_TESTED_PYTHON[1];
		if (tooOld || (tooNew && !wanted)) continue;
		if (outputOf(command, ["-c", "import venv, ensurepip"]) === null) {
			throw new SetupError(
				`${command} (${answer}) has no venv module.`,
				`Install it (Debian and Ubuntu: "apt install python${major}.${minor}-venv") and run the same command again.`,
			);
		}
		return { command, version: answer };
	}
	throw new SetupError(
		`Python ${OLDEST_PYTHON.join(".")} to ${NEWEST_TESTED_PYTHON.join(".")} was not found${seen.length > 0 ? ` (${seen.join(", ")})` : ""}.`,
		"Install one, or name it: PYTHON=/path/to/python3.12 npm run setup",
	);
}

/** Whether node_modules holds what the lock file says, by npm's own record of it. */
function npmPackagesMatch() {
	const wanted = JSON.parse(String(contentOf("package-lock.json"))).packages;
	const record = String(contentOf("node_modules", ".package-lock.json"));
	if (record === "" || nodeVersionOf(bundledNode) !== wanted["node_modules/node"]?.version) return false;
	const held = JSON.parse(record).packages;
	return Object.entries(wanted).every(
		([path, entry]) => path === "" || (entry.optional && !held[path]) || held[path]?.version === entry.version,
	);
}

/** Whether the Python environment holds what the lock file says, the runner itself included. */
function pythonPackagesMatch() {
	const program =
		"import importlib.metadata as m; print(*(f\"{d.metadata['Name']}=={d.version}\" for d in m.distributions()))";
	const held = existsSync(python) ? outputOf(python, ["-c", program]) : null;
	if (held === null) return false;
	const normal = (name) => name.toLowerCase().replaceAll(/[-_.]+/g, "-");
	const versions = new Map(
		held.split(" ").map((pair) => {
			const [name = "", version = ""] = pair.split("==");
			// PyTorch's CPU build carries a local version: 2.13.0+cpu is 2.13.0.
			return [normal(name), version.split("+")[0]];
		}),
	);
	// Packages of some systems alone have a marker after their version; whether they are here is left to pip.
	const pinned = String(contentOf("gpu-runner", "requirements.lock")).matchAll(/^([\w.-]+)==(\S+) \\$/gm);
	const wanted = [...pinned, pinnedTorch()];
	return (
		versions.has("yaqa-runner") && wanted.every(([, name = "", version]) => versions.get(normal(name)) === version)
	);
}

/** PyTorch's line of requirements.txt, its name and its version. */
function pinnedTorch() {
	const found = /^(torch)==(\S+)$/m.exec(String(contentOf("gpu-runner", "requirements.txt")));
	if (found === null) throw new Error("gpu-runner/requirements.txt has no line torch==VERSION");
	return found;
}

function checkMachine(hasCuda, say) {
	if (outputOf("git", ["--version"]) === null) {
		say("git was not found: the demo and the bot run without it, contributing does not.");
	}
	const { bavail, bsize } = statfsSync(root);
	const free = bavail * bsize;
	const needed = hasCuda ? NEEDED_BYTES_WITH_CUDA : NEEDED_BYTES;
	if (free < needed) {
		throw new SetupError(
			`${(free / 1024 ** 3).toFixed(1)} GB are free on the disk of ${root}; the installation needs ${needed / 1024 ** 3} GB.`,
			"Free some space, or clone onto a larger disk.",
		);
	}
	if (hasCuda && outputOf("cc", ["--version"]) === null && outputOf("gcc", ["--version"]) === null) {
		say('A CUDA device is here but no C compiler: GPU kernels need one (Debian and Ubuntu: "apt install gcc").');
	}
}

/**
 * Runs a program; its output goes to `logFile`, and to the terminal the lines that `show` picks.
 * @returns {Promise<void>} rejects with a SetupError that quotes the end of the output
 */
async function runLogged(program, args, { logFile, cwd = root, env = process.env, show, remedy }) {
	mkdirSync(dirname(logFile), { recursive: true });
	writeFileSync(logFile, "");
	const child = spawn(program, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"], shell: windows });
	const tail = [];
	for (const stream of [child.stdout, child.stderr]) {
		createInterface({ input: stream }).on("line", (line) => {
			appendFileSync(logFile, `${line}\n`);
			tail.push(line);
			if (tail.length > 15) tail.shift();
			show?.(line);
		});
	}
	const code = await new Promise((resolve) => {
		child.on("error", (error) => {
			tail.push(error.message);
			resolve(-1);
		});
		child.on("close", resolve);
	});
	if (code !== 0) {
		const quoted = tail.map((line) => `    ${line}`).join("\n");
		throw new SetupError(
			`"${[program, ...args].join(" ")}" failed:\n${quoted}`,
			`${remedy} (whole output: ${logFile})`,
		);
	}
}

function nodeVersionOf(binary) {
	const version = outputOf(binary, ["--version"]);
	return version === null ? null : version.replace(/^v/, "");
}

/** Type stripping is on without a flag from 22.18 and from 24 on. */
function stripsTypes(version) {
	const [major = 0, minor = 0] = version.split(".").map(Number);
	return major >= 24 || (major === 22 && minor >= 18);
}

/** The Node that runs TypeScript: the bundled one, else the one that runs this, when it is new enough. */
export function nodeBinary() {
	return existsSync(bundledNode) ? bundledNode : process.execPath;
}

/**
 * A Node that is there now. After an update of the lock file, this program may itself run on the bundled Node (npm puts
 * node_modules/.bin first on the path), which `npm ci` has just removed from under it.
 */
function presentNode() {
	if (existsSync(process.execPath)) return process.execPath;
	const name = windows ? "node.exe" : "node";
	const folder = (process.env.PATH ?? "").split(delimiter).find((entry) => existsSync(join(entry, name)));
	if (folder !== undefined) return join(folder, name);
	throw new SetupError("No Node is left to install Node 24 with.", "Install Node 20 or later outside this folder.");
}

/**
 * `npm ci` runs no package's scripts: onnxruntime-node's would download CUDA libraries, and npm 11 blocks them anyway.
 * The package `node` needs its own, which brings the binary; it is run here.
 */
async function installNpmPackages(say) {
	const npm = windows ? "npm.cmd" : "npm";
	if (outputOf(windows ? "cmd" : npm, windows ? ["/c", "npm", "--version"] : ["--version"]) === null) {
		throw new SetupError("npm was not found.", "Install Node with npm and run the same command again.");
	}
	say("npm packages: about 300, 700 MB unpacked");
	await runLogged(npm, ["ci", "--ignore-scripts", "--loglevel=error", "--no-fund", "--no-audit"], {
		logFile: join(cache, "setup-npm.log"),
		remedy: "Check the network and npm's registry setting, then run the same command again",
	});
	const folder = join(root, "node_modules", "node");
	if (nodeVersionOf(bundledNode) === null) {
		say("Node 24: 120 MB");
		await runLogged(presentNode(), ["installArchSpecificPackage.js"], {
			cwd: folder,
			logFile: join(cache, "setup-node.log"),
			remedy: "Install Node 24 yourself and run the same command with it",
		}).catch((error) => {
			if (!stripsTypes(process.versions.node)) throw error;
			say(`Node 24 could not be installed; going on with the Node ${process.versions.node} that is here.`);
		});
	}
	const version = nodeVersionOf(nodeBinary());
	if (version === null || !stripsTypes(version)) {
		throw new SetupError(
			`The Node in ${folder} does not run.`,
			"Install Node 24 yourself and run the same command with it.",
		);
	}
	if (!windows && existsSync(bundledNode)) {
		const link = join(root, "node_modules", ".bin", "node");
		rmSync(link, { force: true });
		symlinkSync("../node/bin/node", link);
	}
}

async function installPythonPackages(interpreter, say) {
	const held = existsSync(python)
		? outputOf(python, ["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])
		: null;
	if (held !== interpreter.version) {
		say(`Python environment: ${venv} (Python ${interpreter.version})`);
		rmSync(venv, { recursive: true, force: true });
		await runLogged(interpreter.command, ["-m", "venv", venv], {
			logFile: join(cache, "setup-venv.log"),
			remedy: `Check that "${interpreter.command} -m venv" works`,
		});
	}
	say("Python packages: about 70, PyTorch the largest (200 MB, with CUDA 2.5 GB)");
	const options = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"];
	const logged = {
		logFile: join(cache, "setup-pip.log"),
		remedy: "Check the network and pip's index setting, then run the same command again",
		show: (line) => {
			const download = /^\s*Downloading (\S+) \((\d[\d.]* (?:MB|GB))\)/.exec(line);
			if (download && !/^[0-4](\.\d+)? MB$/.test(download[2]))
				say(`  ${download[1].split("/").at(-1)}  ${download[2]}`);
			if (/^Installing collected packages/.test(line)) say("  unpacking");
		},
	};
	await runLogged(python, [...options, "--require-hashes", "--no-deps", "-r", "gpu-runner/requirements.lock"], logged);
	// Its build differs by machine, and so do its hash and what it brings along.
	await runLogged(python, [...options, pinnedTorch()[0]], { ...logged, logFile: join(cache, "setup-torch.log") });
	if (existsSync(join(root, "gpu-runner", "pyproject.toml"))) {
		await runLogged(python, [...options, "--no-deps", "-e", "gpu-runner"], {
			...logged,
			logFile: join(cache, "setup-runner.log"),
		});
		await runLogged(python, ["-m", "yaqa_runner.formats.gguf.converter_package"], {
			logFile: join(cache, "setup-converter.log"),
			remedy: "Check the network and pip's index setting, then run the same command again",
		});
	}
	await runLogged(python, ["-c", "import torch, transformers, onnx, onnxruntime, numba, gguf, compressed_tensors"], {
		logFile: join(cache, "setup-import.log"),
		remedy: "The packages are there but do not load; the message above says which system library is missing",
	});
}

function isAlive(pid) {
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return error.code === "EPERM";
	}
}

/** One setup at a time in this folder; a lock whose owner died is taken over. */
async function withLock(say, work) {
	mkdirSync(cache, { recursive: true });
	const ownerFile = join(lockFolder, "pid");
	const deadline = Date.now() + LOCK_WAIT_MS;
	let said = false;
	for (;;) {
		const mine = join(cache, `setup.lock.${process.pid}`);
		mkdirSync(mine, { recursive: true });
		writeFileSync(join(mine, "pid"), String(process.pid));
		try {
			// A hard link appears whole or not at all: nobody sees a lock without its owner.
			mkdirSync(lockFolder, { recursive: true });
			linkSync(join(mine, "pid"), ownerFile);
			break;
		} catch (error) {
			if (error.code !== "EEXIST" && error.code !== "ENOENT") throw error;
			const owner = Number(existsSync(ownerFile) ? readFileSync(ownerFile, "utf8") : 0);
			if (owner > 0 && !isAlive(owner)) {
				rmSync(lockFolder, { recursive: true, force: true });
				continue;
			}
			if (Date.now() > deadline) {
				throw new SetupError(
					`Another setup (process ${owner}) has held ${lockFolder} for 20 minutes.`,
					"End it, or remove that folder.",
				);
			}
			if (!said) say(`Another setup is at work here (process ${owner}); waiting for it.`);
			said = true;
			await sleep(250);
		} finally {
			rmSync(mine, { recursive: true, force: true });
		}
	}
	try {
		return await work();
	} finally {
		rmSync(lockFolder, { recursive: true, force: true });
	}
}

/**
 * Brings Node 24, the npm packages and the Python environment to what the lock files say.
 * Does nothing but read five small files when they already are.
 * @param {{ quiet?: boolean }} options quiet: say nothing unless something fails
 * @returns {Promise<{ seconds: number, changed: boolean }>}
 */
export async function setUp({ quiet = false } = {}) {
	const started = performance.now();
	// stderr: a command's stdout may be one JSON document.
	const say = (text) => {
		if (!quiet) process.stderr.write(`${text}\n`);
	};
	const finish = (changed) => ({ seconds: (performance.now() - started) / 1000, changed });

	const major = Number(process.versions.node.split(".")[0]);
	if (major < OLDEST_NODE) {
		throw new SetupError(
			`This is Node ${process.versions.node}; ${OLDEST_NODE} or later is needed to start.`,
			"Install a current Node and run the same command again.",
		);
	}
	const upToDate = () => {
		const stamp = readStamp();
		return (
			stamp.npm === npmStampOf() &&
			stamp.python === pythonStampOf(stamp.interpreter ?? "") &&
			existsSync(join(root, "node_modules")) &&
			existsSync(python) &&
			(existsSync(bundledNode) || stripsTypes(process.versions.node))
		);
	};
	if (upToDate()) return finish(false);

	return withLock(say, async () => {
		if (upToDate()) return finish(false);
		say("Setting up yaqa-bot (once; later runs take no time)");
		const interpreter = findPython();
		checkMachine(outputOf("nvidia-smi", ["-L"]) !== null, say);
		let stamp = readStamp();
		if (stamp.npm !== npmStampOf() || !existsSync(join(root, "node_modules"))) {
			if (!npmPackagesMatch()) await installNpmPackages(say);
			stamp = { ...stamp, npm: npmStampOf() };
			writeStamp(stamp);
		}
		const interpreterName = `${interpreter.command} ${interpreter.version}`;
		if (stamp.python !== pythonStampOf(interpreterName) || !existsSync(python)) {
			if (!pythonPackagesMatch()) await installPythonPackages(interpreter, say);
			writeStamp({ ...stamp, python: pythonStampOf(interpreterName), interpreter: interpreterName });
		}
		const done = finish(true);
		say(`Set up in ${done.seconds.toFixed(0)} s\n`);
		return done;
	});
}

/** Prints a failure for people and gives the exit code. */
export function reportFailure(error) {
	if (error instanceof SetupError) {
		process.stderr.write(`\nSetup failed: ${error.message}\n\nWhat to do: ${error.remedy}\n`);
		return 1;
	}
	process.stderr.write(`${error?.stack ?? error}\n`);
	return 70;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
	try {
		const { changed } = await setUp({ quiet: process.argv.includes("--quiet") });
		if (!changed && !process.argv.includes("--quiet")) process.stderr.write("Everything is set up.\n");
	} catch (error) {
		process.exitCode = reportFailure(error);
	}
}
