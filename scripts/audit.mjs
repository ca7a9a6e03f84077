// Asks npm's and PyPI's lists of known holes about every package that is installed: `npm run audit`, by a timer.
// Ends with 1 where a hole is known, with 2 where a list could not be asked.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

const root = join(import.meta.dirname, "..");
/** What looks for this project's own environment must not find the auditor's. */
const folder = mkdtempSync(join(tmpdir(), "yaqa-audit-"));
const program = join(folder, "bin", "python");

function run(command, args, options = {}) {
	return spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024, ...options });
}

/** `holes`: how many; `null`: the list could not be asked, and `why` tells. */
function npmHoles() {
	const asked = run("npm", ["audit", "--omit=dev", "--json"]);
	try {
		const { vulnerabilities, error, message } = JSON.parse(asked.stdout);
		if (vulnerabilities === undefined)
			return { holes: null, why: error?.summary || message || "its list does not answer" };
		const names = Object.entries(vulnerabilities).map(([name, one]) => `${name} (${one.severity})`);
		return { holes: names.length, names };
	} catch {
		return { holes: null, why: (asked.stderr || asked.stdout || String(asked.error)).trim().slice(0, 300) };
	}
}

function pythonHoles() {
	const python = join(root, "gpu-runner", ".venv", "bin", "python");
	run(existsSync(python) ? python : "python3", ["-m", "venv", folder]);
	const installed = run(program, ["-m", "pip", "install", "--quiet", "pip-audit==2.9.0"]);
	if (installed.status !== 0) return { holes: null, why: (installed.stderr ?? "").trim().slice(0, 300) };
	const lock = join("gpu-runner", "requirements.lock");
	const args = ["-m", "pip_audit", "-r", lock, "--no-deps", "--disable-pip", "--format", "json"];
	const asked = run(program, [...args, "--progress-spinner", "off"]);
	try {
		const { dependencies } = JSON.parse(asked.stdout);
		const names = dependencies
			.filter((one) => (one.vulns ?? []).length > 0)
			.map((one) => `${one.name} ${one.version} (${one.vulns.map((hole) => hole.id).join(", ")})`);
		return { holes: names.length, names };
	} catch {
		return { holes: null, why: (asked.stderr || String(asked.error)).trim().split("\n").at(-1)?.slice(0, 300) };
	}
}

const results = { npm: npmHoles(), python: pythonHoles() };
for (const [list, { holes, names = [], why }] of Object.entries(results)) {
	process.stderr.write(
		holes === null ? `${list}: could not be asked: ${why}\n` : `${list}: ${holes} packages with known holes\n`,
	);
	for (const name of names) process.stderr.write(`  ${name}\n`);
}
process.stdout.write(`${JSON.stringify({ npm: results.npm.holes, python: results.python.holes })}\n`);
rmSync(folder, { recursive: true, force: true });
const found = Object.values(results).some(({ holes }) => holes !== null && holes > 0);
const unasked = Object.values(results).some(({ holes }) => holes === null);
process.exitCode = found ? 1 : unasked ? 2 : 0;
