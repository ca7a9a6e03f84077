#!/usr/bin/env node
// `npm test`: sets up what is missing, then every check and every suite. The last line sums all of them up.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { nodeBinary, python, reportFailure, root, setUp } from "./setup.mjs";

const usage = `Usage: npm test [-- LEG… | FILE… | FOLDER…] [-t PATTERN]

LEG       typecheck, lint, ruff, mypy, python, unit, contract, integration, engines, models, conversation, runners, e2e, faults (default: all)
FILE      a test file, for example test/unit/architecture.test.ts or gpu-runner/tests/test_gguf.py
-t TEXT   only tests whose name matches

The last line is "N passed, N failed, N skipped"; a check without tests of its own counts as one.
Exit status: 0 when nothing failed, 1 when something did, 2 for an argument that is not understood.`;

const NODE_SUITES = [
	"unit",
	"contract",
	"integration",
	"engines",
	"models",
	"conversation",
	"runners",
	"e2e",
	"faults",
];
const TRITON = "triton==3.9.0";
/** They measure time, or kill processes at chosen moments. */
const ALONE = ["runners", "e2e", "faults"];
/** A leg that takes longer hangs: the whole suite stays under 35 minutes on two cores. */
const LEG_LIMIT_MS = 30 * 60 * 1000;
/** A test file that takes longer hangs, perhaps on what a failed test left open; it ends with its name, and the leg goes on. */
const FILE_LIMIT_MS = 10 * 60 * 1000;
/** A test that takes longer fails while its file still has the time to clean up. */
const TEST_LIMIT_MS = FILE_LIMIT_MS - 30_000;
const SLOWEST_SHOWN = 5;

function testFilesUnder(folder) {
	if (!existsSync(join(root, folder))) return [];
	return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
		.filter((path) => path.endsWith(".test.ts"))
		.map((path) => join(folder, path))
		.sort();
}

/** Ends a process and all that it started: bots and servers of a test do not outlive it. */
function endTree(pid) {
	const children = new Map();
	for (const line of execFileSync("ps", ["-axo", "pid=,ppid="], { encoding: "utf8" }).split("\n")) {
		const [child, parent] = line.trim().split(/\s+/).map(Number);
		children.set(parent, [...(children.get(parent) ?? []), child]);
	}
	const doomed = [pid];
	for (const one of doomed) doomed.push(...(children.get(one) ?? []));
	for (const one of doomed) {
		try {
			process.kill(one, "SIGKILL");
		} catch {
			// It ended by itself meanwhile.
		}
	}
}

/** Runs a program and keeps its output; `onOutput` sees it as it comes. */
function execute(program, args, { env = {}, onOutput, limitMs = LEG_LIMIT_MS, what = "It" }) {
	return new Promise((resolve) => {
		let output = "";
		const child = spawn(program, args, {
			cwd: root,
			stdio: ["ignore", "pipe", "pipe"],
			env: {
				...process.env,
				...env,
				PATH: `${join(root, "node_modules", ".bin")}${delimiter}${dirname(python)}${delimiter}${process.env.PATH}`,
			},
		});
		const timer = setTimeout(() => {
			const said = `\n${what} was stopped after ${limitMs / 60_000} minutes.\n`;
			output += said;
			onOutput(said);
			endTree(child.pid);
		}, limitMs);
		for (const stream of [child.stdout, child.stderr]) {
			stream.setEncoding("utf8");
			stream.on("data", (text) => {
				output += text;
				onOutput(text);
			});
		}
		const finish = (code) => {
			clearTimeout(timer);
			resolve({ code, output });
		};
		child.on("error", (error) => {
			output += `${error.message}\n`;
			finish(-1);
		});
		child.on("close", finish);
	});
}

/** A check that either holds or does not: it counts as one. */
function check(name, program, ...commandLines) {
	return {
		name,
		async run(onOutput) {
			let failed = false;
			for (const args of commandLines) failed = (await execute(program, args, { onOutput })).code !== 0 || failed;
			return { passed: failed ? 0 : 1, failed: failed ? 1 : 0, skipped: 0 };
		},
	};
}

/** What one file's reporter says of the whole run is said once, for all of them. */
const SUMMARY_LINES = /^(\x1b\[\d+m)?ℹ (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) .*\n/gmu;

async function testFile(file, { pattern, countsFile, onOutput }) {
	const started = performance.now();
	const { code } = await execute(
		nodeBinary(),
		[
			"--test",
			`--test-timeout=${TEST_LIMIT_MS}`,
			"--test-reporter=spec",
			"--test-reporter-destination=stdout",
			`--test-reporter=${new URL("test-counts.mjs", import.meta.url)}`,
			`--test-reporter-destination=${countsFile}`,
			...(pattern === null ? [] : [`--test-name-pattern=${pattern}`]),
			file,
		],
		{ onOutput, env: process.stdout.isTTY ? { FORCE_COLOR: "1" } : {}, limitMs: FILE_LIMIT_MS, what: file },
	);
	const counts = existsSync(countsFile) ? readFileSync(countsFile, "utf8") : "";
	const { passed = 0, failed = 0, cancelled = 0, skipped = 0, todo = 0 } = counts === "" ? {} : JSON.parse(counts);
	const broken = failed + cancelled;
	return {
		file,
		seconds: (performance.now() - started) / 1000,
		passed,
		// A file that ends badly without one failed test of its own still failed.
		failed: code === 0 ? broken : Math.max(1, broken),
		skipped: skipped + todo,
	};
}

function nodeSuite(name, files, pattern, scratch) {
	const concurrency = name === "e2e" ? 1 : 2;
	return {
		name,
		async run(onOutput) {
			const waiting = [...files.entries()];
			const results = [];
			const isLive = concurrency === 1 || files.length === 1;
			const lane = async () => {
				for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
					const [index, file] = next;
					let output = "";
					const keep = (text) => {
						output += text;
					};
					results.push(
						await testFile(file, {
							pattern,
							countsFile: join(scratch, `${name}-${index}.json`),
							onOutput: isLive ? onOutput : keep,
						}),
					);
					if (!isLive) onOutput(output.replaceAll(SUMMARY_LINES, ""));
				}
			};
			await Promise.all(Array.from({ length: concurrency }, lane));
			const slowest = results.toSorted((one, other) => other.seconds - one.seconds).slice(0, SLOWEST_SHOWN);
			const shown = slowest.map(({ file, seconds }) => `${file} ${seconds.toFixed(0)} s`);
			if (files.length > 1) onOutput(`Slowest: ${shown.join(", ")}\n`);
			const broken = results.filter((result) => result.failed > 0).map((result) => result.file);
			if (broken.length > 0) onOutput(`Failed: ${broken.join(", ")}\n`);
			const total = (key) => results.reduce((sum, result) => sum + result[key], 0);
			return { passed: total("passed"), failed: total("failed"), skipped: total("skipped") };
		},
	};
}

/**
 * Triton runs its kernels on the CPU too, for tests. It is not among what setup installs: 640 MB that only they use, and
 * where there is CUDA, PyTorch brings its own. Without it they are skipped and say so.
 */
async function installTriton(onOutput) {
	if (process.platform !== "linux") return;
	const held = await execute(python, ["-c", "import triton"], { onOutput: () => undefined });
	if (held.code === 0) return;
	onOutput("Installing Triton, whose interpreter runs the CUDA kernels in tests (640 MB unpacked)\n");
	const options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-deps"];
	await execute(python, ["-m", "pip", "install", "-q", ...options, TRITON], { onOutput });
}

function pythonSuite(paths, pattern, scratch) {
	return {
		name: "python",
		async run(onOutput) {
			if (paths.some((path) => path === "gpu-runner/tests" || path.endsWith("test_triton_kernel.py"))) {
				await installTriton(onOutput);
			}
			const report = join(scratch, "pytest.xml");
			const { code } = await execute(
				python,
				[
					"-m",
					"pytest",
					"-q",
					"-rs",
					"--durations=5",
					`--junitxml=${report}`,
					...(pattern === null ? [] : ["-k", pattern]),
					...paths,
				],
				// Two threads on two cores; more only compete with the suites beside this one.
				{ onOutput, env: { OMP_NUM_THREADS: "2", HF_HUB_OFFLINE: "1", HF_HUB_DISABLE_TELEMETRY: "1" } },
			);
			const xml = existsSync(report) ? readFileSync(report, "utf8") : "";
			const count = (attribute) => Number(new RegExp(`<testsuite [^>]*\\b${attribute}="(\\d+)"`).exec(xml)?.[1] ?? 0);
			const broken = count("failures") + count("errors");
			// 5: no test was collected, which a name pattern may well cause.
			const ended = code === 0 || (code === 5 && pattern !== null);
			return {
				passed: count("tests") - broken - count("skipped"),
				failed: ended ? broken : Math.max(1, broken),
				skipped: count("skipped"),
			};
		},
	};
}

function parseArguments(args) {
	const legs = new Set();
	const files = [];
	let pattern = null;
	for (let index = 0; index < args.length; index++) {
		const arg = args[index];
		if (arg === "-h" || arg === "--help") return { help: true };
		if (arg === "-t") {
			pattern = args[++index] ?? null;
			if (pattern === null) return { problem: "-t needs a text." };
		} else if (
			/^(typecheck|lint|ruff|mypy|python|unit|contract|integration|engines|models|conversation|runners|e2e|faults)$/.test(
				arg,
			)
		) {
			legs.add(arg);
		} else if (existsSync(join(root, arg))) {
			files.push(arg);
		} else {
			return { problem: `"${arg}" is neither a leg nor a file here.` };
		}
	}
	return { legs, files, pattern };
}

function legsFor({ legs, files, pattern }, scratch) {
	const everything = legs.size === 0 && files.length === 0;
	const wants = (name) => everything || legs.has(name);
	const pythonFiles = files.filter((file) => file.startsWith("gpu-runner"));
	const nodeFiles = files
		.filter((file) => !file.startsWith("gpu-runner"))
		.flatMap((file) => (file.endsWith(".ts") ? [file] : testFilesUnder(file)));
	const bin = (name) => join(root, "node_modules", name, "bin", name === "typescript" ? "tsc" : "biome");
	const checks = [
		check("typecheck", nodeBinary(), [bin("typescript"), "-p", "."]),
		check("lint", nodeBinary(), [bin("@biomejs/biome"), "check", "."]),
		check("ruff", python, ["-m", "ruff", "check", "gpu-runner"], ["-m", "ruff", "format", "--check", "gpu-runner"]),
		check("mypy", python, ["-m", "mypy", "--config-file", "gpu-runner/pyproject.toml", "gpu-runner/yaqa_runner"]),
	].filter((leg) => pattern === null && wants(leg.name));
	const suites = NODE_SUITES.filter(wants)
		.map((name) => ({ name, files: testFilesUnder(join("test", name)) }))
		.filter((suite) => suite.files.length > 0)
		.map((suite) => nodeSuite(suite.name, suite.files, pattern, scratch));
	if (nodeFiles.length > 0) suites.unshift(nodeSuite("chosen", nodeFiles, pattern, scratch));
	const pythonLegs =
		wants("python") || pythonFiles.length > 0
			? [pythonSuite(pythonFiles.length > 0 ? pythonFiles : ["gpu-runner/tests"], pattern, scratch)]
			: [];
	const alone = suites.filter((leg) => ALONE.includes(leg.name));
	const beside = suites.filter((leg) => !alone.includes(leg));
	// Two lanes for two cores; the others run afterwards, one by one.
	return { lanes: [[...checks, ...pythonLegs], beside], alone };
}

async function runLeg(leg, live) {
	const started = performance.now();
	let output = "";
	if (live) process.stdout.write(`\n=== ${leg.name}\n`);
	const counts = await leg.run((text) => {
		output += text;
		if (live) process.stdout.write(text);
	});
	const seconds = ((performance.now() - started) / 1000).toFixed(0);
	if (!live) process.stdout.write(`\n=== ${leg.name}\n${output}`);
	const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : "";
	process.stdout.write(`--- ${leg.name}: ${counts.passed} passed, ${counts.failed} failed${skipped} (${seconds} s)\n`);
	return { name: leg.name, seconds, ...counts };
}

async function main() {
	const wanted = parseArguments(process.argv.slice(2));
	if (wanted.help) {
		process.stdout.write(`${usage}\n`);
		return 0;
	}
	if (wanted.problem) {
		process.stderr.write(`${wanted.problem}\n\n${usage}\n`);
		return 2;
	}
	await setUp();
	const scratch = mkdtempSync(join(tmpdir(), "yaqa-test-"));
	try {
		const { lanes, alone } = legsFor(wanted, scratch);
		const live = lanes.filter((lane) => lane.length > 0).length < 2;
		const results = [];
		const walk = async (lane, isLive) => {
			for (const leg of lane) results.push(await runLeg(leg, isLive));
		};
		await Promise.all(lanes.map((lane) => walk(lane, live)));
		await walk(alone, true);

		const total = (key) => results.reduce((sum, result) => sum + result[key], 0);
		process.stdout.write("\n");
		for (const result of results) {
			const mark = result.failed > 0 ? "FAILED" : "ok";
			process.stdout.write(
				`${result.name.padEnd(12)} ${mark.padEnd(7)} ${String(result.passed).padStart(5)} passed ${String(result.failed).padStart(4)} failed ${String(result.skipped).padStart(4)} skipped ${result.seconds.padStart(5)} s\n`,
			);
		}
		const skipped = total("skipped");
		process.stdout.write(
			`\n${total("passed")} passed, ${total("failed")} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`,
		);
		return total("failed") > 0 ? 1 : 0;
	} finally {
		rmSync(scratch, { recursive: true, force: true });
	}
}

try {
	process.exitCode = await main();
} catch (error) {
	process.exitCode = reportFailure(error);
}
